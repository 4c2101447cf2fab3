"""What `--help` prints, made from the config files."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, Option
from recipes.config.nothing import NONE
from recipes.config.quoting import quote, show
from recipes.config.spelling import suggest

TRAIN = """\
python train.py                                   train with the defaults
python train.py +regularizer=dropout optimizer=adam optimizer.lr=1e-3
python train.py -m optimizer=sgd,adam seed=0,1,2  one run for each combination, and their comparison
python train.py -m +wrapper=none,sam seed=0,1,2   with a technique and without: none is an option of each group with a plus
python train.py -m sweep=FOLDER                   go on with a sweep; hydra.launcher.n_jobs=2: two jobs at a time
python train.py -m hydra/launcher=slurm seed=0,1  its jobs on a cluster, or with hydra/launcher=ray: see docs/cluster.md"""
EVALUATE = """\
python evaluate.py RUN_FOLDER
python evaluate.py RUN_FOLDER +inference=mc_dropout inference.samples=50
python evaluate.py RUN_FOLDER data=npz data.path=FILE
python evaluate.py RUN_FOLDER +adversarial=pgd adversarial.eps=0,0.1,0.2   a table, and accuracy over eps as a picture"""

PREDICT = """\
python predict.py RUN_FOLDER output=predictions.csv                        its test split
python predict.py RUN_FOLDER data.path=FILE output=predictions.npz         other data, which needs no targets
python predict.py RUN_FOLDER RUN_FOLDER RUN_FOLDER data.path=FILE          the mean of several runs"""

EXPORT = """\
python export.py RUN_FOLDER format=onnx output=model.onnx                  for onnxruntime and others
python export.py RUN_FOLDER format=torch_export output=model.pt2           for torch.export.load
python export.py RUN_FOLDER format=safetensors                             the weights alone"""


def train_help(catalogue: Catalogue, asked: Sequence[str] = ()) -> str:
    """All groups and options; or what there is to say about the groups, options, parameters and keys in `asked`."""
    return "\n".join(_details(catalogue, asked) if asked else _overview(catalogue)) + "\n"


def evaluate_help(catalogue: Catalogue, groups: Sequence[str], asked: Sequence[str] = ()) -> str:
    """The same for evaluate.py."""
    usage = "python evaluate.py RUN_FOLDER ... [GROUP=OPTION ...] [GROUP.PARAMETER=VALUE,VALUE ...]"
    does = "Measure finished runs again: with another way to predict, under attack, on other data or on another device. Several runs, or values, give one table."
    return _of_runs(catalogue, groups, asked, usage, does, EVALUATE)


def predict_help(catalogue: Catalogue, groups: Sequence[str], asked: Sequence[str] = ()) -> str:
    """The same for predict.py."""
    usage = "python predict.py RUN_FOLDER ... [output=FILE.csv|FILE.npz] [GROUP=OPTION ...] [GROUP.PARAMETER=VALUE ...]"
    does = "Predict with a finished run, or with the mean of several: the test split, or other data, which needs no targets."
    return _of_runs(catalogue, groups, asked, usage, does, PREDICT)


def export_help(catalogue: Catalogue, groups: Sequence[str], asked: Sequence[str] = ()) -> str:
    """The same for export.py."""
    usage = "python export.py RUN_FOLDER format=onnx|torch_export|safetensors [output=FILE] [GROUP=OPTION ...] [GROUP.PARAMETER=VALUE ...]"
    does = "Write a finished run as one file for use elsewhere, which is left only if it predicts what the run does on its test split."
    return _of_runs(catalogue, groups, asked, usage, does, EXPORT)


def _of_runs(catalogue: Catalogue, groups: Sequence[str], asked: Sequence[str], usage: str, does: str, examples: str) -> str:
    if asked:
        return train_help(catalogue, asked)
    lines = [usage, "", *_wrap(does, "")]
    for group in groups:
        if group in catalogue.groups:
            lines += ["", *_group(catalogue, group, mark=False)]
    return "\n".join([*lines, "", "Examples", *textwrap.indent(examples, "  ").splitlines()]) + "\n"


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
    yield from _table([_row(key, value, catalogue.comments.get(key, "")) for key, value in catalogue.keys.items()])
    yield from ("", "Examples", *textwrap.indent(TRAIN, "  ").splitlines())
    yield from (
        "",
        *_wrap(
            "python train.py --help GROUP tells every parameter, --help KEY what a key means. Hydra's own flags: --hydra-help.",
            "",
        ),
    )


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
        key, _, value = word.lstrip("+~").partition("=")
        if key in catalogue.groups or "." not in key:
            yield from _named(catalogue, word, key, value)
        else:
            yield from _dotted(catalogue, word, key)


def _named(catalogue: Catalogue, word: str, key: str, value: str) -> Iterator[str]:
    """About a group, an option, a key, or each parameter of this name."""
    if key in catalogue.groups:
        names = [name for name in value.strip("[]").split(",") if name and (name != NONE or NONE in catalogue.groups[key])]
        for option in [catalogue.option(key, name) for name in names] or list(catalogue.groups[key].values()):
            yield from _parameters(catalogue, option)
        return
    if key in catalogue.keys:
        yield from _table([_row(key, catalogue.keys[key], catalogue.comments.get(key, ""))])
        return
    options = [option for options in catalogue.groups.values() for option in options.values() if option.group != "recipe"]
    named = [options[key] for options in catalogue.groups.values() if key in options]
    having = [option for option in options if key in option.settable]
    for option in named:
        yield from _parameters(catalogue, option)
    for option in having:
        yield from _parameters(catalogue, option, key)
    if not named and not having:
        names = [*catalogue.groups, *catalogue.keys, *(name for options in catalogue.groups.values() for name in options)]
        raise RecipeError(f"--help {word}: there is no group, option or key {key}; {suggest(key, names, '--help {}')}")


def _dotted(catalogue: Catalogue, word: str, key: str) -> Iterator[str]:
    """About a parameter, of each option that has it."""
    group, *path = key.split(".")
    if group == "hydra":
        yield from _of_hydra(word, key)
        return
    try:
        options = list(catalogue.group(group).values())
    except RecipeError as error:
        raise RecipeError(f"--help {word}: {error}") from None
    if path[0] in catalogue.groups[group]:
        options = [catalogue.groups[group][path.pop(0)]]
    owners = [option for option in options if not path or path[0] in option.settable]
    if not owners and path[-1] in catalogue.keys:  # which Lightning's trainer has
        yield from _named(catalogue, word, path[-1], "")
        return
    if not owners:
        names = {name for option in options for name in option.settable}
        raise RecipeError(
            f"--help {word}: {group} has no parameter {path[0]}; {suggest(path[0], names, f'--help {group}.{{}}')}"
        )
    for option in owners:
        yield from _parameters(catalogue, option, path[0] if path else None)


def _of_hydra(word: str, key: str) -> Iterator[str]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from recipes.config.composing import compose

    try:
        value = OmegaConf.to_container(compose([]), resolve=False)
        for name in key.split("."):
            value = value[name]  # type: ignore[index, call-overload]
    except (KeyError, TypeError, IndexError, OmegaConfBaseException):
        raise RecipeError(f"--help {word}: Hydra has no setting {key}; --cfg hydra shows all of them") from None
    shown = list(value) if isinstance(value, dict) else value
    yield from _table([(f"{key}={show(shown)}", "a setting of Hydra's; --cfg hydra shows all of them")])


def _parameters(catalogue: Catalogue, option: Option, only: str | None = None) -> Iterator[str]:
    yield from _wrap(f"{catalogue.spelling(option.group, option.name)}: {option.summary}", "")
    prefix = f"{option.group}.{option.name}" if option.wrapped else option.group
    if option.group != "recipe":
        shown = option.parameters if only is None else {only: option.settable[only]}
        yield from _table([_row(f"{prefix}.{name}", value, option.comments.get(name, "")) for name, value in shown.items()])


def _row(key: str, value: object, comment: str) -> tuple[str, str]:
    """A key with its default as it is typed, and what it means."""
    word = f"{key}={show(value).replace(', ', ',')}" if value != "" else f"{key}=''"
    return (word if isinstance(value, list) or value == "" else quote(word)), comment


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = _width()
    column = min(max((len(left) for left, _ in rows), default=0) + 6, width // 2)
    for left, right in rows:
        first = f"    {left}".ljust(column)
        if len(first) >= column and right:
            yield first
            first = " " * column
        yield from textwrap.wrap(right, width, initial_indent=first, subsequent_indent=" " * column) or [first.rstrip()]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent + "  ")


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 140))
