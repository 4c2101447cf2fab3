"""Models and data of a user's own, named by `model._target_=mine.Mine`: a class becomes an option, `model=mine.Mine`, of this command alone.

What is typed is trusted, and so is what stands in a config folder that is typed; a class that a run folder or a sweep names is not, until
it is typed again. Nothing is imported here: what the class takes is read from its file. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config import catalogue
from recipes.config.catalogue import Catalogue, Option
from recipes.config.class_files import (
    DATA,
    LOADERS,
    MISSING,
    MODULE,
    SAMPLES,
    STREAM,
    TRAINER,
    UNKNOWN,
    ClassFile,
    Parameter,
    file_of,
    located,
)
from recipes.config.errors import printable
from recipes.config.quoting import quote
from recipes.config.spelling import nearest

GIVEN = ("shape", "outputs")  # what every model is built from
TARGET, SOURCE = "_target_", "_source_"  # of a node: its class, and a hash of the file in which that stands
GROUPS = {"model": (MODULE,), "data": (DATA, LOADERS, SAMPLES)}  # and what a class of each must be
WANTED = {"model": "an nn.Module", "data": "a Data, a LightningDataModule or a Dataset"}
WRAPPERS = {LOADERS: "recipes.data.own.LoadersData", SAMPLES: "recipes.data.own.SamplesData"}  # by which ours takes them
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
PATH = re.compile(r"([\w./-]+)\.py:(\w+)", re.ASCII)  # mine.py:Mine
DIGITS = 16  # of a hash

trusted: set[str] = set()  # names of classes that may be imported from the working folder


@dataclass(frozen=True)
class OwnOption(Option):
    """A class as an option of its group.

    Attributes:
        found: the class.
    """

    found: ClassFile = field(kw_only=True)

    @property
    def wrapped(self) -> bool:
        """Of models and data a run has one."""
        return False

    @property
    def bases(self) -> list[Option]:
        """A class is a change of no other option."""
        return []

    @property
    def summary(self) -> str:
        """What its docstring says, and where it stands."""
        return " ".join(filter(None, [self.found.told, f"({self.path})"]))

    @cached_property
    def taken(self) -> dict[str, Parameter]:
        """What can be typed."""
        own = {name: each for name, each in self.found.parameters.items() if self.group != "model" or name not in GIVEN}
        if self.group == "data" and self.found.kind != DATA:
            ours = located(WRAPPERS[self.found.kind or SAMPLES]).parameters
            own |= {name: each for name, each in ours.items() if name not in own and name != "make"}
        return {name: each for name, each in own.items() if each.default is not UNKNOWN and not name.startswith("_")}

    @cached_property
    def content(self) -> dict[str, Any]:
        """Its node, with `???` for what must be typed."""
        values = {name: "???" if each.default is MISSING else each.default for name, each in self.taken.items()}
        return {TARGET: self.name, SOURCE: source_of(self.path), **values}

    @cached_property
    def comments(self) -> dict[str, str]:
        """What its docstring says of each parameter."""
        ours = located(WRAPPERS[SAMPLES]).comments | located("recipes.data.base.Data").comments if self.group == "data" else {}
        return {name: said for name, said in {**ours, **self.found.comments}.items() if name in self.taken}

    @property
    def settable(self) -> dict[str, Any]:
        """Its parameters with their defaults, null where any value may be typed."""
        return {
            name: each.default if each.of_its_type and each.default is not MISSING else None
            for name, each in self.taken.items()
        }


def source_of(path: Path) -> str:
    """A hash of a file's content, by which a run knows whether its class has changed since."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]}"


def learn(words: Sequence[str], folders: Iterable[tuple[str, Path]] = ()) -> list[str]:
    """Make options of the classes that are typed, and trust those that typed config folders name; returns the words as Hydra takes them.

    Args:
        words: of the command line; `model._target_=mine.Mine` and `model=mine.Mine` are one, and so is `model._target_=mine.py:Mine`.
        folders: of configs, that were typed.

    Raises:
        RecipeError: no such file or class, or one that is nothing of the group's.
    """
    for _, folder in folders:
        trusted.update(str(option.node[TARGET]) for option in catalogue.options_in(folder) if TARGET in option.node)
    found = []
    for word in words:
        key, _, value = word.partition("=")
        group, said, target = key.lstrip("+").partition(".")
        if group not in GROUPS or (said and target != TARGET):
            found.append(word)
            continue
        value = PATH.sub(_dotted, value)
        names = NAME.findall(value)
        if said and not names:
            raise RecipeError(f"{word}: expected the name of a file and of a class in it, such as {group}.{TARGET}=mine.Mine")
        known = Catalogue().groups[group] if names else {}
        for name in names:
            if (group, name) in catalogue.own_options or (
                name not in known and (said or _is_there(name) or not nearest(name, known))
            ):
                _offer(group, name)
        found.append(f"{group}={value}" if said else f"{key}={value}" if names else word)
    return found


def _is_there(name: str) -> bool:
    """Whether there is such a class, or a file in the working folder that would have it: then the name is no slip of an option's."""
    with suppress(RecipeError):
        return file_of(name.rpartition(".")[0]).path.is_relative_to(Path.cwd()) or bool(located(name))
    return False


def _dotted(found: re.Match[str]) -> str:
    place = Path(found[1])
    if ".." in place.parts or place.is_absolute():
        raise RecipeError(f"{found[0]} lies outside of the working folder: type the command where it lies")
    return ".".join([*place.parts, found[2]])


def _offer(group: str, name: str) -> None:
    """Let Hydra, and every catalogue of this process, find a class as an option."""
    from hydra.core.config_store import ConfigStore  # which a command that names no class need not load

    typed = f"{group}.{TARGET}={name}"
    try:
        found = located(name)
    except RecipeError as error:
        raise RecipeError(f"{typed}: {error}") from None
    if found.kind == STREAM:
        raise RecipeError(stream(name))
    if found.kind == TRAINER and group == "model":
        raise RecipeError(
            f"{typed}: it is a LightningModule, whose training_step and optimizers would not be used: name the nn.Module that it trains"
        )
    if found.kind is not None and found.kind not in GROUPS[group]:
        raise RecipeError(f"{typed}: expected {WANTED[group]}, and {name} is {', '.join(found.bases)}")
    if group == "model" and (missing := [each for each in GIVEN if each not in found.parameters]):
        there = ", ".join(found.parameters) or "nothing"
        raise RecipeError(
            f"{typed}: a model is built from ({', '.join(GIVEN)}, …), the shape of a sample and the number of outputs, and {name} takes "
            f"{there}: add {' and '.join(missing)} to its __init__"
        )
    option = OwnOption(group, name, _shown(found.file.path), found=found)
    catalogue.own_options[group, name] = option
    trusted.add(name)
    ConfigStore.instance().store(group=group, name=name, node=option.content, provider="lightning_recipes")


def stream(name: str) -> str:
    """Why a stream is refused."""
    return (
        f"data.{TARGET}={name}: it is an IterableDataset, whose samples cannot be reached by their number: the order of samples is drawn by it, "
        f"so that runs can be compared and resumed; make it a Dataset with __getitem__ and __len__"
    )


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def typed_again(config: Mapping[str, Any], words: Iterable[str]) -> list[str]:
    """Words without those that name the classes of a run's own once more, which change nothing.

    Args:
        config: of the run.
        words: as :func:`learn` returns them.
    """
    again = {
        f"{group}={config[group].get(TARGET)}"
        for group in GROUPS
        if (group, config[group].get(TARGET)) in catalogue.own_options
    }
    return [word for word in words if word.lstrip("+") not in again]


def own_words(words: Iterable[str]) -> list[str]:
    """Those of the words that name a class which was typed in this command."""
    return [word for word in words if any(each in catalogue.own_options for each in _named(word))]


def unknown_words(words: Iterable[str]) -> list[str]:
    """Those of the words that name a class which nobody has typed in this command."""
    return [word for word in words if any(name not in Catalogue().groups[group] for group, name in _named(word))]


def _named(word: str) -> list[tuple[str, str]]:
    """The group and the names of what a word chooses that may be classes."""
    key, _, value = word.lstrip("+").partition("=")
    group = key.removesuffix(f".{TARGET}")
    return [(group, name) for name in NAME.findall(PATH.sub(_dotted, value))] if group in GROUPS else []


def changed(config: Mapping[str, Any]) -> str:
    """What of a run's own classes stands in another file than it was trained with, in words; empty where nothing does."""
    for group in GROUPS:
        node = config.get(group)
        option = catalogue.own_options.get((group, str(node.get(TARGET)))) if isinstance(node, Mapping) else None
        if option is not None and isinstance(node, Mapping) and SOURCE in node and node[SOURCE] != option.node[SOURCE]:
            return f"{option.path} has changed since ({printable(str(node[SOURCE]))}, now {option.node[SOURCE]})"
    return ""


def expect_unchanged(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run whose class is another one now: it would be of neither."""
    if told := changed(config):
        raise RecipeError(
            f"{told}: {folder} would go on with another class than it has begun with; set it back, or start a new run"
        )


def warn_of_changes(config: Mapping[str, Any], folder: Path) -> None:
    """Tell that a run was trained with a class whose file is another one now."""
    if told := changed(config):
        catalogue.warn(f"{told}: {folder} was trained as it was then")


def expect_typed(known: Catalogue, config: Mapping[str, Any]) -> None:
    """Refuse a run of classes that are no options here, and were not typed: their files would be run."""
    words = []
    for group in GROUPS:
        node = config.get(group)
        target = node.get(TARGET) if isinstance(node, Mapping) else None
        there = {option.node.get(TARGET) for option in known.groups[group].values()}
        if isinstance(target, str) and NAME.fullmatch(target) and target not in there:
            words.append(f"{group}.{TARGET}={target}")
    if words:
        raise RecipeError(
            f"it was trained with {' and '.join(words)}, which no option here names: if the code is yours, or you trust it, as it would be "
            f"run, type it with this command: {' '.join(map(quote, words))}"
        )
