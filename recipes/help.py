"""What `--help` prints, made from the config files."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from recipes.catalogue import Catalogue, Option, UsageError, show, suggest

TRAIN = """\
python train.py                                   train with the defaults
python train.py +regularizer=dropout optimizer=adam optimizer.lr=1e-3
python train.py -m optimizer=sgd,adam seed=0,1,2  one run for each combination, and their comparison
python train.py -m sweep=FOLDER                   go on with a sweep; hydra.launcher.n_jobs=2: two jobs at a time
python train.py -m hydra/launcher=slurm seed=0,1  its jobs on a cluster, or with hydra/launcher=ray: see docs/cluster.md"""
EVALUATE = """\
python evaluate.py RUN_FOLDER
python evaluate.py RUN_FOLDER +inference=mc_dropout inference.samples=50
python evaluate.py RUN_FOLDER data=npz data.path=FILE"""


def train_help(catalogue: Catalogue, asked: Sequence[str] = ()) -> str:
    """All groups and options; or, of the groups and options in `asked`, every parameter."""
    return "\n".join(_details(catalogue, asked) if asked else _overview(catalogue)) + "\n"


def evaluate_help(catalogue: Catalogue, groups: Sequence[str], asked: Sequence[str] = ()) -> str:
    """The same for evaluate.py."""
    if asked:
        return train_help(catalogue, asked)
    lines = ["python evaluate.py RUN_FOLDER [GROUP=OPTION ...] [GROUP.PARAMETER=VALUE ...]", ""]
    lines += _wrap("Measure a finished run again, with another way to predict, on other data or on another device.", "")
    for group in groups:
        if group in catalogue.groups:
            lines += ["", *_group(catalogue, group, mark=False)]
    return "\n".join([*lines, "", "Examples", *textwrap.indent(EVALUATE, "  ").splitlines()]) + "\n"


def _overview(catalogue: Catalogue) -> Iterator[str]:
    yield from _wrap("python train.py [GROUP=OPTION ...] [GROUP.PARAMETER=VALUE ...] [KEY=VALUE ...]", "")
    added = [group for group in catalogue.groups if group not in catalogue.defaults]
    always = [group for group in catalogue.defaults if catalogue.groups[group]]
    sections = [
        (
            "Every run has one of these: GROUP=OPTION. * is the default.",
            always,
        ),
        ("Added with a plus: +GROUP=OPTION.", [group for group in added if not catalogue.many(group)]),
        ("Added with a plus, several at once: +GROUP=[OPTION,OPTION].", [group for group in added if catalogue.many(group)]),
    ]
    for title, groups in sections:
        if groups:
            yield from ("", *_wrap(title, ""))
        for group in groups:
            yield from ("", *_group(catalogue, group))
    yield from ("", "Keys")
    yield from _table(
        [(f"{key}={show(value) or repr('')}", catalogue.comments.get(key, "")) for key, value in catalogue.keys.items()]
    )
    yield from ("", "Examples", *textwrap.indent(TRAIN, "  ").splitlines())
    yield from ("", *_wrap("python train.py --help GROUP tells every parameter. Hydra's own flags: --hydra-help.", ""))


def _group(catalogue: Catalogue, group: str, mark: bool = True) -> Iterator[str]:
    about = catalogue.comments.get(group, "")
    if catalogue.many(group) and group in catalogue.defaults:
        about += f" ({group}=[OPTION,OPTION]: several at once)"
    yield from _wrap(f"{group}: {about}" if about else group, "  ")
    default = catalogue.defaults.get(group) if mark else None
    rows = [(("* " if name == default else "  ") + name, option.summary) for name, option in catalogue.groups[group].items()]
    yield from _table(rows)


def _details(catalogue: Catalogue, asked: Iterable[str]) -> Iterator[str]:
    for number, word in enumerate(asked):
        if number:
            yield ""
        for option in _asked_options(catalogue, word):
            yield from _parameters(catalogue, option)


def _asked_options(catalogue: Catalogue, word: str) -> list[Option]:
    key, _, value = word.lstrip("+~").partition("=")
    group = key.split(".")[0]
    if group in catalogue.groups:
        names = value.strip("[]").split(",") if value and key == group else []
        return [catalogue.option(group, name) for name in names] or list(catalogue.groups[group].values())
    named = [options[word] for options in catalogue.groups.values() if word in options]
    if not named:
        names = [*catalogue.groups, *(name for options in catalogue.groups.values() for name in options)]
        raise UsageError(f"--help {word}: there is no group or option {word}; {suggest(word, names)}")
    return named


def _parameters(catalogue: Catalogue, option: Option) -> Iterator[str]:
    yield from _wrap(f"{catalogue.spelling(option.group, option.name)}: {option.summary}", "")
    prefix = f"{option.group}.{option.name}" if option.wrapped else option.group
    if option.group != "recipe":
        rows = [(f"{prefix}.{name}={show(value)}", option.comments.get(name, "")) for name, value in option.parameters.items()]
        yield from _table(rows)


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = _width()
    column = min(max((len(left) for left, _ in rows), default=0) + 6, width // 2)
    for left, right in rows:
        first = f"    {left}".ljust(column)
        if len(first) > column and right:
            yield first
            first = " " * column
        yield from textwrap.wrap(right, width, initial_indent=first, subsequent_indent=" " * column) or [first.rstrip()]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent + "  ")


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 140))
