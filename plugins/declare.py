"""Parameters, declared once: default, meaning, range and off value stand in one line of the class. Nothing here imports torch.

The constructor, its checks, the docstring's list and `off` come from there, and the comment in the option's file is held equal
to it by a test.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from plugins.errors import expect

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    from typing_extensions import dataclass_transform  # which torch brings

NEVER = object()  # no value is off
RUN_FOLDER = "the folder of a trained run"


@dataclass(frozen=True)
class Parameter:
    """What is known of a parameter; made by the functions below.

    `words` are what a value must be and `accepts` whether it is; `range` is the range as a comment tells it. `null` says what None
    stands for, without which None is refused; `also` a word that is taken beside numbers; `note` and `more` what else is to be
    known, `more` in the docstring alone. `off` is the value with which the technique does nothing. `kept` is the attribute that holds
    the value, where a method has the parameter's name.
    """

    help: str
    _: KW_ONLY
    default: Any
    words: str
    accepts: Callable[[Any], bool]
    range: str = ""
    unit: str = ""
    also: str = ""
    note: str = ""
    null: str = ""
    more: str = ""
    off: Any = NEVER
    convert: Callable[[Any], Any] | None = None
    kw_only: bool = False
    kept: str = ""
    applies: Callable[[type], bool] | None = None

    def checked(self, name: str, value: Any) -> Any:
        """The value to keep; raises a :class:`RecipeError` that names the parameter, what it must be and what it was."""
        if self.convert is not None:
            value = self.convert(value)
        if value is None and self.null:
            return None
        expect(self.accepts(value), name, self.words + (" or null" if self.null else ""), value)
        return value

    @property
    def comment(self) -> str:
        """The comment in an option's file: `meaning in unit, range | also; note; null: what`."""
        said = self.help + (f" in {self.unit}" if self.unit else "")
        said = ", ".join(filter(None, [said, self.range])) + (f" | {self.also}" if self.also else "")
        return "; ".join(filter(None, [said, self.note, f"null: {self.null}" if self.null else ""]))

    def described(self, name: str) -> str:
        """The entry of a docstring's list."""
        none = "" if self.off is NEVER else f"; {self.off} is an exact no-op"
        return f"{name}: {self.comment.replace('null: ', 'None: ')}{none}." + (f" {self.more}" if self.more else "")


def number(
    help: str,
    *,
    default: float | None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    **further: Any,
) -> Any:
    """A finite number, or with `infinite` any: `least` ≤, `above` <, ≤ `most`, < `below`. `further` as of :class:`Parameter`."""
    low, high = (above if least is None else least), (below if most is None else most)
    opens, closes = ("(" if least is None else "["), (")" if most is None else "]")
    if low is not None and high is not None:
        told = f"in {opens}{low:g}, {high:g}{closes}"
        words = "a probability between 0 and 1" if told == "in [0, 1]" else f"a number {told}"
    else:
        told = "" if low is None else f"{'>' if least is None else '≥'} {low:g}"
        words = f"a number {told}".strip()
    if also := further.get("also"):
        words += f", or {also.split()[0]}"

    def accepts(value: Any) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not (infinite or math.isfinite(value)):
            return False
        above_low = low is None or value > low or (least is not None and value == low)
        return above_low and (high is None or value < high or (most is not None and value == high))

    if default is None and least is not None and high is None:
        told = f"a number {told}"  # ≥ alone is told of whole numbers where the default tells no kind
    return Parameter(help, default=default, words=words, accepts=accepts, range=told, **further)


def share(help: str, *, default: float | None, **further: Any) -> Any:
    """A number in [0, 1]: a probability, or a part of a whole."""
    return number(help, default=default, least=0, most=1, **further)


def count(help: str, *, default: int | None, least: int = 1, most: int | None = None, **further: Any) -> Any:
    """A whole number, `least` ≤ and ≤ `most`."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least and (most is None or value <= most)

    told = f"≥ {least}" if most is None else f"in [{least}, {most}]"
    return Parameter(help, default=default, words=f"a whole number {told}", accepts=accepts, range=told, **further)


def choice(*choices: str, default: str | None, help: str = "", **further: Any) -> Any:
    """One of some words; a help that has a bar tells them itself."""
    words = "one of " + ", ".join(choices)
    if "|" not in help:
        listed = " | ".join(choices)
        help = f"{help}, {listed}" if help and default is None else "; ".join(filter(None, [listed, help]))
    return Parameter(help, default=default, words=words, accepts=lambda value: value in choices, **further)


def flag(help: str, *, default: bool, **further: Any) -> Any:
    """True or false."""
    return Parameter(help, default=default, words="true or false", accepts=lambda value: isinstance(value, bool), **further)


def run_folder(help: str, **further: Any) -> Any:
    """The folder of another run; None by default: the technique asks for it before the first batch."""
    accepts = lambda value: isinstance(value, str) and bool(value)  # noqa: E731
    return Parameter(help, default=None, words=RUN_FOLDER, accepts=accepts, **further)


def value(help: str, words: str, accepts: Callable[[Any], bool], *, default: Any, **further: Any) -> Any:
    """Anything else: `words` say what it must be, `accepts` whether it is."""
    return Parameter(help, default=default, words=words, accepts=accepts, **further)


def span(help: str, *, default: tuple[float, float], **further: Any) -> Any:
    """Two numbers (start, end), 0 ≤ start < end ≤ 1, as shares of a whole; a list is fine too."""

    def accepts(value: Any) -> bool:
        numbers = isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, float) for end in value)
        return numbers and 0 <= value[0] < value[1] <= 1

    def convert(value: Any) -> Any:
        return tuple(float(end) if type(end) is int else end for end in value) if isinstance(value, (list, tuple)) else value

    words = "two numbers, 0 ≤ start < end ≤ 1"
    return Parameter(help, default=default, words=words, accepts=accepts, range="in [0, 1]", convert=convert, **further)


def interval(
    help: str,
    *,
    default: list[float],
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    **further: Any,
) -> Any:
    """Two numbers [from, to], from ≤ to, between which is drawn: `least` ≤, or `above` <, and ≤ `most`; a tuple is fine too."""
    low = above if least is None else least
    if low is None:
        told = "" if most is None else f"≤ {most:g}"
    elif most is None:
        told = f"{'>' if least is None else '≥'} {low:g}"
    else:
        told = f"in {'(' if least is None else '['}{low:g}, {most:g}]"

    def accepts(value: Any) -> bool:
        numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(end, float) for end in value)
        if not numbers or not -math.inf < value[0] <= value[1] < math.inf or (most is not None and value[1] > most):
            return False
        return low is None or value[0] > low or value[0] == least

    def convert(value: Any) -> Any:
        return [float(end) if type(end) is int else end for end in value] if isinstance(value, (list, tuple)) else value

    words = f"{f'two numbers {told}'.strip()}, the first not above the second"
    return Parameter(
        f"{help}, {told}".removesuffix(", "), default=default, words=words, accepts=accepts, convert=convert, **further
    )


@dataclass_transform(eq_default=False, field_specifiers=(number, share, count, choice, flag, run_folder, span, interval, value))
class Declared:
    """A class whose parameters are declared in its body, by `number`, `share`, `count`, `choice`, `flag`, `run_folder`,
    `span`, `interval` or `value`.

    ``p: float = declare.share("probability that a unit is dropped", default=0.5, off=0.0)`` makes `p` a parameter of the constructor, checked
    there and kept as an attribute. A class's own parameters come first, in their order, then those it inherits. What else a
    constructor has to do is in `__post_init__`. A class may have an `__init__` of its own in place of all this.
    """

    declared_parameters: ClassVar[Mapping[str, Parameter]] = {}
    _own_parameters: ClassVar[Mapping[str, Parameter]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._own_parameters = {name: held for name, held in vars(cls).items() if isinstance(held, Parameter)}
        for name, held in cls._own_parameters.items():
            if held.kept:
                delattr(cls, name)  # so that the method is seen again
            setattr(cls, held.kept or name, held.default)
        found: dict[str, Parameter] = {}
        for base in cls.__mro__:
            own = vars(base).get("_own_parameters", {})
            found |= {name: held for name, held in own.items() if name not in found}
        found = {name: held for name, held in found.items() if held.applies is None or held.applies(cls)}
        cls.declared_parameters = dict(sorted(found.items(), key=lambda item: item[1].kw_only))
        off = {name: held.off for name, held in cls.declared_parameters.items() if held.off is not NEVER}
        if off and "off" not in vars(cls):
            cls.off = off  # type: ignore[attr-defined]
        maker = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
        cls.__signature__ = _signature(cls.declared_parameters) if maker is Declared.__init__ else _without_self(maker)  # type: ignore[attr-defined]
        if maker is Declared.__init__ and cls.declared_parameters:
            cls.__doc__ = _with_list(cls.__doc__ or "", cls.declared_parameters)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        kind = type(self)
        try:
            bound = _signature(kind.declared_parameters).bind(*arguments, **named).arguments
        except TypeError as error:
            raise TypeError(f"{kind.__name__}: {error}") from None
        for name, parameter in kind.declared_parameters.items():
            setattr(self, parameter.kept or name, parameter.checked(name, bound.get(name, parameter.default)))
        self.__post_init__()

    def __post_init__(self) -> None:
        """What a constructor has to do once the parameters are checked and kept."""


def _signature(parameters: Mapping[str, Parameter]) -> inspect.Signature:
    kinds = {True: inspect.Parameter.KEYWORD_ONLY, False: inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return inspect.Signature(
        [inspect.Parameter(name, kinds[held.kw_only], default=held.default) for name, held in parameters.items()]
    )


def _without_self(maker: Any) -> inspect.Signature:
    whole = inspect.signature(maker)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def _with_list(text: str, parameters: Mapping[str, Parameter]) -> str:
    """A docstring with the list of the parameters, before what it says of errors and sources."""
    text = inspect.cleandoc(text)
    if "\nArgs:\n" in text:
        return text
    ends = [place for mark in ("\n\nShapes:", "\n\nRaises:", "\n\nSource:") if (place := text.find(mark)) >= 0]
    end = min(ends, default=len(text))
    listed = "".join(f"\n    {held.described(name)}" for name, held in parameters.items())
    return f"{text[:end]}\n\nArgs:{listed}{text[end:]}"
