"""The catalogue page: every group, option and parameter, from `conf/` and the docstrings of the classes that options name.

Sources are read, not imported: neither torch nor a technique is loaded.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from textwrap import dedent

import yaml

from recipes.check import refusals
from recipes.config.catalogue import Catalogue, Option
from recipes.config.quoting import show

ROOT = Path(__file__).resolve().parents[2]
COSTS = ROOT / "benchmarks" / "costs.yaml"
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples):$", re.MULTILINE)
HEAD = """\
# Catalogue

Every option, as the config files and the classes tell it; `python train.py --help GROUP` prints the same parameters. Every
technique that acts step by step takes `when` too, the share of the training in which it does, as in `augmentation.mixup.when=[0,0.9]`. How
techniques are chosen together: [Choosing techniques](guide/techniques.md); what cannot be: [Refused combinations](refusals.md).
"""
COST = """
What a step costs is given as a multiple of a plain step, with the 95 % interval of the median, on the machine, the model and the day that
`python -m benchmarks.cost` was last run: {machine}, {model}, torch {torch}, {date}. A step on a larger model or a GPU costs another multiple; one
of two passes stays near 2.
"""
REFUSED = """\
# Refused combinations

What is told in one line before anything is trained, and why. The tests hold this table to what is refused: each pair of options that does
not stand here trains, in whatever order it is written. Each row refuses any option of the first column beside any of the second; a group
stands for all of its options. What an option cannot do on some data, or without some other option, its own entry in the [catalogue](catalogue.md) tells.
"""


def page(catalogue: Catalogue, pictures: Collection[str] = ()) -> str:
    """The page, in Markdown, with the pictures that are there."""
    always = [group for group in catalogue.defaults if catalogue.groups[group]]
    added = sorted(group for group in catalogue.groups if group not in catalogue.defaults)
    lines, costs = [HEAD], Costs()
    if costs.ratios:
        lines.append(COST.format(**costs.measured))
    for group in [*always, *added]:
        lines += _group(catalogue, group, costs, pictures)
    rows = [(f"`{key}`", f"`{show(value)}`", catalogue.comments.get(key, "")) for key, value in catalogue.keys.items()]
    lines += ["", "## Keys", "", "Set with `KEY=VALUE`.", "", *_table(("key", "default", "meaning"), rows)]
    return "\n".join(lines) + "\n"


class Costs:
    """What was measured of the cost of options, where there is such a file."""

    def __init__(self, path: Path = COSTS) -> None:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.measured: dict[str, str] = found.get("measured", {})
        self.ratios: dict[str, list[float]] = found.get("ratios", {})

    def told(self, name: str) -> str:
        """The line about an option; empty where it was not measured."""
        if name not in self.ratios:
            return ""
        ratio, low, high = self.ratios[name]
        return f"**Cost of a step:** × {ratio:.2f} ({low:.2f} to {high:.2f})"


def refused(catalogue: Catalogue) -> str:
    """The page of combinations that are refused, in Markdown."""
    rows = []
    for written, reason in refusals.read().items():
        first, *others = (part.split(refusals.OR) for part in written.split(refusals.TIMES))
        cells = [" · ".join(_linked(catalogue, name, "catalogue.md") for name in part) for part in (first, *others)]
        rows.append((cells[0], " with ".join(cells[1:]), reason))
    return "\n".join([REFUSED, *_table(("option", "cannot be combined with", "words of the refusal"), rows)]) + "\n"


def excluded(option: Option) -> Iterator[tuple[list[list[str]], str]]:
    """What cannot be combined with an option: for each row of the table the other parts, options or groups, and the reason."""
    names = {option.group, f"{option.group}/{option.name}"}
    for written, reason in refusals.read().items():
        parts = [part.split(refusals.OR) for part in written.split(refusals.TIMES)]
        for number, part in enumerate(parts):
            if names & {*part}:
                yield parts[:number] + parts[number + 1 :], reason


def _linked(catalogue: Catalogue, name: str, page: str = "") -> str:
    """An option, or a group, as it is typed, linked to its place."""
    group, _, option = name.partition("/")
    text = catalogue.spelling(group, option) if option else catalogue.spelling(group, "…")
    return f"[`{text}`]({page}#{name.replace('/', '-')})"


def source_of(target: str) -> Path | None:
    """The file of a class of this project; None for those of libraries."""
    path = ROOT / (target.rpartition(".")[0].replace(".", "/") + ".py")
    return path if path.exists() else None


def docstring(target: str) -> str:
    """What the class says about itself; nothing if it is a library's."""
    path, name = source_of(target), target.rpartition(".")[2]
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
    return ""


def sections(text: str) -> dict[str, str]:
    """A docstring in Google's style, cut into its sections; what stands before and between them is below `""`."""
    found = {"": ""}
    name = ""
    for line in text.splitlines():
        if match := SECTION.match(line):
            name = match[1]
            found[name] = ""
            continue
        if line and not line.startswith(" "):
            name = ""
        found[name] += line + "\n"
    return {name: dedent(part).strip() for name, part in found.items()}


def entries(text: str) -> list[tuple[str, str]]:
    """The entries `name: what it means` of a section, each in one line."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        elif line.strip():
            name, _, meaning = line.partition(":")
            found.append((name.strip(), meaning.strip()))
    return found


def _group(catalogue: Catalogue, group: str, costs: Costs, pictures: Collection[str]) -> Iterator[str]:
    options = catalogue.groups[group]
    about = catalogue.comments.get(group, "")
    spelling = catalogue.spelling(group, "OPTION")
    how = f"Chosen with `{spelling}`"
    if catalogue.many(group):
        how += f", several with `{spelling.replace('OPTION', '[OPTION,OPTION]')}` in quotes"
    if default := catalogue.defaults.get(group):
        how += f"; the default is [{default}](#{group}-{default})"
    yield from ("", f"## {group} {{#{group}}}", "")
    yield f"{about[:1].upper()}{about[1:]}. {how}." if about else f"{how}."
    for option in options.values():
        yield from _option(catalogue, option, costs, pictures)


def _option(catalogue: Catalogue, option: Option, costs: Costs, pictures: Collection[str]) -> Iterator[str]:
    yield from (
        "",
        f"### {option.name} {{#{option.group}-{option.name}}}",
        "",
        f"`{catalogue.spelling(option.group, option.name)}`",
    )
    yield from ("", option.summary)
    if option.group == "recipe":
        yield from ("", "```yaml", option.text.strip(), "```")
        return
    target = option.node.get("_target_", "")
    said = sections(docstring(target))
    for paragraph in said[""].split("\n\n"):
        if paragraph and paragraph.strip() != option.summary:
            yield from ("", re.sub(r"^Source: ", "**Source:** ", _plain(paragraph)))
    if (picture := f"pictures/{option.group}-{option.name}.png") in pictures:
        yield from ("", f"![Two photographs, and what five draws make of each]({picture})")
    place = f"{option.group}.{option.name}" if option.wrapped else option.group
    inherited = {name: value for base in option.bases for name, value in base.node.items()}
    rows = [
        (f"`{place}.{name}`", f"`{show(value)}`", option.comments.get(name, ""))
        for name, value in option.parameters.items()
        if name not in inherited or inherited[name] != value
    ]
    if rows:
        yield from ("", *_table(("parameter", "default", "meaning"), rows))
    for base in option.bases:
        yield from ("", f"All else as in [{base.name}](#{base.group}-{base.name}).")
    if refused := entries(said.get("Raises", "")):
        yield from ("", "Refused:", "", *(f"- {meaning} (`{error}`)" for error, meaning in refused))
    others = [
        f"- {' with '.join(' · '.join(_linked(catalogue, name) for name in part) for part in parts)}: {reason}"
        for parts, reason in excluded(option)
    ]
    if others:
        yield from ("", "Cannot be combined with:", "", *others)
    if told := costs.told(f"{option.group}/{option.name}"):
        yield from ("", told)
    if target.startswith("plugins."):
        yield from ("", f"Class [`{target}`](api/techniques.md#{target})")
    elif target:
        yield from ("", f"Class `{target}`")


def _plain(text: str) -> str:
    """Roles of reStructuredText as code."""
    return re.sub(r":\w+:(?=`)", "", text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def techniques(catalogue: Catalogue) -> str:
    """The page of the techniques' own classes and functions, in Markdown for mkdocstrings."""
    lines = ["# Techniques", "", "The classes behind the options, and the pure functions that hold their mathematics."]
    for group in sorted(catalogue.groups):
        modules = {option.node.get("_target_", "").rpartition(".")[0] for option in catalogue.groups[group].values()}
        modules = {module for module in modules if module.startswith("plugins.")}
        if modules:
            lines += ["", f"## {group}"]
        for module in sorted(modules):
            lines += ["", f"::: {module}", "    options:", "      heading_level: 3"]
    return "\n".join(lines) + "\n"
