"""Classes in files of a user's own, read without running them: where one stands, what it is, what it is made from. Nothing here imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.module_places import beside, installed, part_of
from recipes.config.spelling import nearest

MODULE, TRAINER, DATA, LOADERS, SAMPLES, STREAM = "module", "trainer", "data", "loaders", "samples", "stream"
KINDS = {  # bases of libraries, and ours, by name
    **{f"torch.nn.{place}Module": MODULE for place in ("", "modules.", "modules.module.")},
    **{f"{place}.Data": DATA for place in ("lightning_recipes", "recipes.data.base")},
    **{f"torch.utils.data.{place}Dataset": SAMPLES for place in ("", "dataset.")},
    **{f"torch.utils.data.{place}IterableDataset": STREAM for place in ("", "dataset.")},
    **{f"{place}.LightningDataModule": LOADERS for place in ("lightning", "lightning.pytorch", "pytorch_lightning")},
    **{f"{place}.LightningModule": TRAINER for place in ("lightning", "lightning.pytorch", "pytorch_lightning")},
}
DEEPEST = 8  # files from which one class is taken after the other
UNKNOWN, MISSING = object(), object()  # a default that is no plain value; no default


@dataclass(frozen=True)
class Parameter:
    """One that a class is made from: its default, MISSING or UNKNOWN, and whether it must be of the default's type."""

    default: Any
    of_its_type: bool = True


@dataclass(frozen=True)
class SourceFile:
    """A file with Python in it.

    Attributes:
        module: its name, as it is imported.
        path: of the file.
    """

    module: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """What stands in it."""
        try:
            return ast.parse(untrusted.read_text(self.path.resolve()))
        except SyntaxError as error:
            raise RecipeError(f"{self.path}, line {error.lineno}: {error.msg}") from None
        except (OSError, ValueError) as error:
            raise RecipeError(f"{self.path} cannot be read: {error}") from None

    @cached_property
    def imported(self) -> dict[str, str]:
        """What its imports name, by the name they have here."""
        package = self.module if self.path.stem == "__init__" else self.module.rpartition(".")[0]
        found: dict[str, str] = {}
        for node in statements(self.tree.body):
            if isinstance(node, ast.Import):
                found |= {
                    name.asname or name.name.partition(".")[0]: name.name if name.asname else name.name.partition(".")[0]
                    for name in node.names
                }
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                place = ".".join([*above, *([node.module] if node.module else [])])
                found |= {
                    name.asname or (name.name if name.name != "*" else f"*{place}"): f"{place}.{name.name}"
                    for name in node.names
                }
        return found

    @property
    def all_of(self) -> list[str]:
        """The modules of which it imports all names, `from x import *`."""
        return [place.removesuffix(".*") for name, place in self.imported.items() if name.startswith("*")]

    @property
    def classes(self) -> list[str]:
        """The names of its classes."""
        return [node.name for node in statements(self.tree.body) if isinstance(node, ast.ClassDef)]

    def named(self, expression: ast.expr) -> str:
        """The whole name of what an expression such as `nn.Module` or `Dataset[int]` names; empty where it names nothing."""
        expression = expression.value if isinstance(expression, ast.Subscript) else expression
        first, _, rest = ast.unparse(expression).partition(".")
        if not all(part.isidentifier() for part in (first, *rest.split(".")) if part or rest):
            return ""
        return ".".join([self.imported.get(first, f"{self.module}.{first}"), *([rest] if rest else [])])

    def value(self, expression: ast.expr) -> Any:
        """The plain value of a default, also of a name that is given one in the file; UNKNOWN where it is another."""
        if isinstance(expression, ast.Name):
            given = [
                node.value
                for node in self.tree.body
                if isinstance(node, ast.Assign)
                and any(isinstance(to, ast.Name) and to.id == expression.id for to in node.targets)
            ]
            return self.value(given[-1]) if given and not isinstance(given[-1], ast.Name) else UNKNOWN
        with suppress(ValueError, TypeError, SyntaxError, RecursionError):
            return plain(ast.literal_eval(expression))
        return UNKNOWN


@dataclass(frozen=True)
class ClassFile:
    """A class, and the file in which it stands.

    Attributes:
        file: in which.
        node: the class.
    """

    file: SourceFile
    node: ast.ClassDef

    @cached_property
    def bases(self) -> list[str]:
        """The whole names of what it is a kind of."""
        return [name for base in self.node.bases if (name := self.file.named(base))]

    @cached_property
    def kind(self) -> str | None:
        """What it is, by the first of its bases that tells; None where none does."""
        return self._kind(DEEPEST)

    def _kind(self, left: int) -> str | None:
        for base in self.bases:
            if kind := KINDS.get(base):
                return kind
            with suppress(RecipeError):
                if left and (kind := located(base)._kind(left - 1)):
                    return kind
        return None

    @property
    def told(self) -> str:
        """The first line of its docstring."""
        return next(iter((ast.get_docstring(self.node) or "").splitlines()), "")

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What it is made from, by name; those that it hands on to its base are among them."""
        return self._parameters(DEEPEST)

    def _parameters(self, left: int) -> dict[str, Parameter]:
        made = next((node for node in self.node.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
        if made is None and self._is_dataclass:
            return self._fields(left)
        inherited: dict[str, Parameter] = {}
        if made is None or made.args.kwarg:
            for base in self.bases:
                if left and KINDS.get(base, DATA) == DATA and not inherited:
                    with suppress(RecipeError):
                        inherited = located(base)._parameters(left - 1)
        if made is None:
            return inherited
        given = made.args
        places = [*given.posonlyargs, *given.args][1:]
        defaults = [None] * (len(places) - len(given.defaults)) + list(given.defaults[-len(places) :] if places else [])
        own = {
            each.arg: self._parameter(each.annotation, default)
            for each, default in zip([*places, *given.kwonlyargs], [*defaults, *given.kw_defaults], strict=True)
        }
        return own | {name: each for name, each in inherited.items() if name not in own}

    @property
    def _is_dataclass(self) -> bool:
        return any("dataclass" in ast.unparse(each) for each in self.node.decorator_list)

    def _fields(self, left: int) -> dict[str, Parameter]:
        """Those of the dataclasses that it is a kind of, and its own if it is one."""
        found: dict[str, Parameter] = {}
        for base in reversed(self.bases if left else []):
            if KINDS.get(base, DATA) == DATA:
                with suppress(RecipeError):
                    found |= located(base)._fields(left - 1)
        for node in self.node.body if self._is_dataclass else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                said = ast.unparse(node.annotation).strip("'\"").partition("[")[0]
                default, taken = self._of_field(node.value)
                if not taken:
                    found.pop(node.target.id, None)
                elif not said.endswith(("ClassVar", "KW_ONLY")):
                    found[node.target.id] = self._parameter(node.annotation, default)
        return found

    def _of_field(self, value: ast.expr | None) -> tuple[ast.expr | None, bool]:
        """The default of a dataclass' field, or what makes it; and whether the field is a parameter."""
        if not isinstance(value, ast.Call) or self.file.named(value.func) != "dataclasses.field":
            return value, True
        given = {each.arg: each.value for each in value.keywords}
        init = given.get("init")
        taken = not (isinstance(init, ast.Constant) and init.value is False)
        return given.get("default", given.get("default_factory")), taken

    def _parameter(self, annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
        said = ast.unparse(annotation) if annotation else ""
        value = MISSING if default is None else self.file.value(default)
        if said == "float" and type(value) is int:
            value = float(value)
        return Parameter(value, not any(word in said for word in ("|", "Optional", "Union", "Any", "object")))

    @cached_property
    def comments(self) -> dict[str, str]:
        """What is said about each parameter: behind it in the file, or in the docstring below `Args:`."""
        texts = [
            ast.get_docstring(node) or ""
            for node in (self.node, *self.node.body)
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]
        lines = [line.strip() for text in texts[:2] for line in text.partition("Args:")[2].splitlines()]
        found = [line.partition(": ") for line in lines]
        return {name.partition(" ")[0]: said for name, colon, said in found if colon and name.partition(" ")[0].isidentifier()}


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a file, those below `if` and `try` too."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                yield from statements(getattr(node, name, []))


def plain(value: Any) -> Any:
    """A value as a config holds it; UNKNOWN where it is of another kind."""
    if isinstance(value, list | tuple):
        found = [plain(each) for each in value]
        return UNKNOWN if UNKNOWN in found else found
    if isinstance(value, dict):
        return UNKNOWN if value else {}
    known = value is None or isinstance(value, bool | int | float | str)
    return UNKNOWN if not known or (isinstance(value, str) and "$" in value) else value


def located(name: str, left: int = DEEPEST) -> ClassFile:
    """The class of a whole name such as `mine.Mine`, followed through the files that import it from another.

    Raises:
        RecipeError: no such file, no such class in it, or no class.
    """
    module, _, own = name.rpartition(".")
    file = file_of(module, own)
    for node in reversed(list(statements(file.tree.body))):
        if isinstance(node, ast.ClassDef) and node.name == own:
            return ClassFile(file, node)
        if isinstance(node, ast.FunctionDef) and node.name == own:
            raise RecipeError(f"{own} in {file.path} is a function, expected a class")
    if left and own in file.imported and file.imported[own] != name:
        return located(file.imported[own], left - 1)
    for place in file.all_of if left else ():
        with suppress(RecipeError):
            return located(f"{place}.{own}", left - 1)
    near = nearest(own, file.classes)
    raise RecipeError(
        f"{file.path} has no class {own}; "
        + (f"did you mean {module}.{near}?" if near else f"there is {', '.join(file.classes) or 'none'}")
    )


def file_of(module: str, own: str = "") -> SourceFile:
    """The file of a module: in the working folder, or of what is installed. Nothing is imported.

    Args:
        module: its name.
        own: the name of the class that is looked for.

    Raises:
        RecipeError: it is not there, or it is in both places.
    """
    top, *rest = module.split(".")
    here, elsewhere = beside(top), installed(top)
    if here and elsewhere and here.resolve() != elsewhere.resolve():
        raise RecipeError(f"{here} has the name of another module, {elsewhere}: give it another name")
    place = here or elsewhere
    for part in rest:
        package = place and (place if place.is_dir() else place.parent if place.stem == "__init__" else None)
        place = package and part_of(package, part)
    if place is None:
        near = nearest(top, [path.stem for path in Path.cwd().glob("*.py")])
        hint = f"; did you mean {'.'.join([near, *rest, own])}?" if near and near != top else ""
        raise RecipeError(f"there is no {module.replace('.', '/')}.py in {Path.cwd()}, and no installed module {module}{hint}")
    if place.is_dir():
        raise RecipeError(f"{place} is a folder, expected the name of a file in it and of a class")
    return SourceFile(module, place)
