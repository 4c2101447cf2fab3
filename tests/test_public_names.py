"""What a user types stays what it is from release to release, or CHANGELOG.md says what became of it."""

import re

import pytest

from tests.public_names import CHANGELOG, FOLDER, ROOT, public_names, released, unexplained, write

BEFORE = ["regularizer=dropout", "regularizer.dropout.p", "optimizer=adam", "optimizer=adam: lr", "seed", "compare.py --sort"]


def test_every_name_is_that_of_the_last_release_or_named_in_the_changelog():
    changelog = CHANGELOG.read_text(encoding="utf-8")
    file = FOLDER / f"{released(changelog)}.txt"
    assert file.exists(), "a release keeps its names: python -m tests.public_names"
    missing = unexplained(file.read_text(encoding="utf-8").splitlines(), public_names(), changelog)
    assert not missing, "CHANGELOG.md, section Unreleased: " + "; ".join(missing)


def test_the_last_release_is_that_of_the_package():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert released(CHANGELOG.read_text(encoding="utf-8")) == version
    assert FOLDER.joinpath(f"{version}.txt").exists()


def test_names_are_of_every_kind():
    names = public_names()
    assert names == sorted(set(names)) and len(names) > 280
    assert {
        *(
            "regularizer=dropout",
            "regularizer.dropout.p",
            "optimizer=adam: lr",
            "trainer=default: devices",
            "recipe=digits_baseline",
        ),
        *("seed", "max_steps", "hydra/launcher=slurm: timeout_min", "hydra/launcher=ray: ray.init.address"),
        *("train.py --help", "evaluate.py --config-dir", "compare.py --baseline"),
    } <= set(names)


@pytest.mark.parametrize("name", BEFORE)
def test_a_name_that_is_gone_must_be_named_as_such(name):
    now = [other for other in BEFORE if other != name]
    assert len(unexplained(BEFORE, now, log())) == 1
    assert not unexplained(BEFORE, now, log(Removed=f"- `{name}`.")) and not unexplained(
        BEFORE, now, log(Changed=f"- `{name}`.")
    )
    assert unexplained(BEFORE, now, log(Added=f"- `{name}`.")), "that it is new says nothing about where it went"
    assert unexplained(BEFORE, now, log(Removed=f"- `{name}s` and `{name}.more`.")), "another name"
    assert unexplained(BEFORE, now, f"## [Unreleased]\n\n## [0.1.0]\n\n### Removed\n\n- `{name}`.\n"), "an earlier release"


@pytest.mark.parametrize("name", BEFORE)
def test_a_new_name_must_be_named_as_such(name):
    before = [other for other in BEFORE if other != name]
    assert f"`{name}` under Added" in unexplained(before, BEFORE, log())[0]
    assert not unexplained(before, BEFORE, log(Added=f"- `{name}`: what it does."))
    assert unexplained(before, BEFORE, log(Removed=f"- `{name}`."))


def test_an_option_brings_its_parameters_along():
    now = [name for name in BEFORE if "dropout" not in name and "adam" not in name]
    changed = "- `regularizer=dropout` and `optimizer=adam`."
    assert not unexplained(BEFORE, now, log(Removed=changed)) and not unexplained(now, BEFORE, log(Added=changed))
    assert len(unexplained(BEFORE, now, log())) == 2
    assert len(unexplained(BEFORE, [*BEFORE, "regularizer.dropout.q"], log(Added=changed))) == 1


def test_the_names_of_a_release_are_written_once(tmp_path):
    write(tmp_path, "9.0.0")
    assert (tmp_path / "9.0.0.txt").read_text().splitlines() == public_names()
    with pytest.raises(SystemExit, match="is there already"):
        write(tmp_path, "9.0.0")


def log(**sections):
    """A changelog with these sections for what is not yet released."""
    text = "".join(f"### {heading}\n\n{lines}\n\n" for heading, lines in sections.items())
    return f"# Changelog\n\n## [Unreleased]\n\n{text}## [0.1.0] - 2026-11-20\n\nFirst release.\n"
