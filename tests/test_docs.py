"""The documentation: files that it names are there, the catalogue has every option, the site builds offline and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from plugins.hooks import HOOKS
from recipes.check import refusals
from recipes.config.catalogue import Catalogue
from tests.site import site

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TO_WRITE = r"\*\*`[^`]*`\*\*"  # in bold: files that the reader is to write


@pytest.fixture(scope="module")
def catalogue():
    return site("catalogue")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path):
    text = re.sub(TO_WRITE, "", path.read_text())
    named = re.findall(
        r"(?<![\w./-])((?:recipes|plugins|tests|conf|docs|benchmarks|hydra_plugins|examples)/[\w./-]*\w/?)", text
    )
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_that_are_named_exist(path):
    for name in re.findall(r"^(?:::: |from |import )((?:recipes|plugins)(?:\.\w+)+)", path.read_text(), re.MULTILINE):
        name = re.sub(r"\.[A-Z]\w*$", "", name)
        assert (ROOT / (name.replace(".", "/") + ".py")).exists(), name


def test_every_part_of_the_house_is_told():
    text = (ROOT / "docs/design.md").read_text()
    for floor in (ROOT / "recipes").iterdir():
        assert not (floor / "__init__.py").exists() or f"`recipes/{floor.name}/`" in text, floor.name


def test_the_guide_names_options_that_exist():
    ours = Catalogue()
    for path in sorted((ROOT / "docs/guide").glob("*.md")):
        for group, names in re.findall(r"\+(\w+)=(\[[a-z0-9_,]+\]|[a-z0-9_]+)", path.read_text()):
            for name in names.strip("[]").split(","):
                assert name == "none" or name in ours.groups[group], f"{path.name}: +{group}={name}"


def test_parts_of_the_module_that_are_named_exist():
    named = re.findall(r"(?<![\w/.])`(\w+\.py)`", (ROOT / "docs/engine.md").read_text().partition("## The hooks")[0])
    there = {file.name for file in (ROOT / "recipes/engine").glob("*.py")}
    assert len(named) > 15 and not {*named} - there - {"train.py", "evaluate.py", "compare.py"}


def test_the_table_of_hooks_is_that_of_the_code():
    text = (ROOT / "docs/engine.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (\w+) \| (yes|) ?\| (yes|) ?\| \S.* \|$", text, re.MULTILINE)
    marks = {True: "yes", False: ""}
    assert told == [(hook.name, hook.moment, marks[hook.alone], marks[hook.sees_weights]) for hook in HOOKS]


def test_the_catalogue_has_every_option_and_parameter(catalogue):
    page = catalogue.page(Catalogue())
    for path in (ROOT / "conf").glob("*/*.yaml"):
        if path.parent.name in Catalogue().groups:
            assert f"### {path.stem} {{#{path.parent.name}-{path.stem}}}" in page, path
    for group, options in Catalogue().groups.items():
        for option in options.values():
            own = option.content.keys() if group != "recipe" else ()
            for name in own:
                place = f"{group}.{option.name}.{name}" if option.wrapped else f"{group}.{name}"
                assert name in ("_target_", "defaults") or name.startswith("_") or f"| `{place}` |" in page, place
    assert "\n- no hidden activation in the model, or none that matches `sites`; activations that" in page
    assert "\n- a parameter out of range. (`RecipeError`)" in page


def test_what_cannot_be_combined_stands_with_both_and_in_a_table(catalogue):
    ours, page = Catalogue(), catalogue.page(Catalogue())
    known = [f"{group}/{name}" for group, options in ours.groups.items() for name in options]
    told = {
        f"{group}/{name}": {each for parts, _ in catalogue.excluded(option) for part in parts for each in part}
        for group, options in ours.groups.items()
        for name, option in options.items()
    }
    pairs = [sorted(names) for names in refusals.expand(refusals.read(), known) if len(names) == 2]
    assert pairs
    for first, second in pairs:
        for name, other in ((first, second), (second, first)):
            assert {other, other.split("/")[0]} & told[name], f"{name}: {other}"
    entry = page[page.index("{#distillation-logits}") : page.index("{#distillation-self}")]
    assert "\n- [`loss=mse`](#loss-mse): makes probabilities of logits, which MSE does not train" in entry
    rows = [line for line in catalogue.refused(ours).splitlines() if line.startswith("| [")]
    assert len(rows) == len(refusals.read())


def test_costs_are_of_options_that_exist_and_are_shown(catalogue, tmp_path):
    costs, ours = catalogue.Costs(), Catalogue()
    for name in costs.ratios:
        group, option = name.split("/")
        assert option in ours.groups[group], f"benchmarks/costs.yaml: {name} is no option; run python -m benchmarks.cost"
    (tmp_path / "costs.yaml").write_text("measured: {}\nratios:\n  wrapper/sam: [1.9, 1.85, 2.0]\n")
    given = catalogue.Costs(tmp_path / "costs.yaml")
    assert given.told("wrapper/sam") == "**Cost of a step:** × 1.90 (1.85 to 2.00)" and not given.told("wrapper/none")
    shown = catalogue.page(ours)
    assert all(costs.told(name) in shown for name in costs.ratios)
    assert not catalogue.Costs(tmp_path / "nothing.yaml").ratios


def test_each_class_of_ours_says_what_it_does(catalogue):
    for options in Catalogue().groups.values():
        for option in options.values():
            target = option.node.get("_target_", "")
            if target.startswith(("plugins.", "recipes.")):
                assert catalogue.docstring(target), target


def test_sections_of_a_docstring(catalogue):
    text = (
        "One line.\n\ny = 2 · x\n\nArgs:\n    x: a number,\n        of any size.\n\nRaises:\n    RecipeError: x is none: "
        "type\n        another.\n    Refusal: beside z.\n\nSource: somebody."
    )
    found = catalogue.sections(text)
    assert found[""] == "One line.\n\ny = 2 · x\n\nSource: somebody."
    assert catalogue.entries(found["Args"]) == [("x", "a number, of any size.")]
    assert catalogue.entries(found["Raises"]) == [("RecipeError", "x is none: type another."), ("Refusal", "beside z.")]


class Links(HTMLParser):
    """What a page links to and loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.emphasized = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {value for name, value in attrs if name in ("id", "name") and value}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preconnect", "preload", "icon"):
            self.loads.append(found["href"])
        self.emphasized += tag == "em"


@pytest.mark.slow
def test_the_site(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "true",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    target = re.search(r"^docs:.*\n\t(?:\w+=\w+ )*\$\(PYTHON\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, *target[1].replace("$(SITE)", str(tmp_path / "site")).split()]  # as `make docs` does
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    site = tmp_path / "site"
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert {str(path.relative_to(site)) for path in pages} >= {"index.html", "catalogue.html", "api/techniques.html"}
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            place, anchor = urldefrag(link)
            if place.startswith(("http://", "https://")):
                assert link not in page.loads, f"{path.name} loads {link}"
                continue
            there = (path.parent / unquote(place)).resolve() if place else path
            assert there.exists(), f"{path.name} links to {link}"
            assert not anchor or there not in pages or unquote(anchor) in pages[there].ids, f"{path.name} links to {link}"
        text = path.read_text()
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", path.read_text()), path
    ours = Catalogue()
    wanted = {f"{group}-{name}" for group, options in ours.groups.items() for name in options}
    assert wanted <= pages[site / "catalogue.html"].ids
    assert pages[site / "catalogue.html"].emphasized == 0, "an equation with _ or * must stand in backticks"
    assert not re.search(r":(class|func|meth|mod):", (site / "api/techniques.html").read_text())
