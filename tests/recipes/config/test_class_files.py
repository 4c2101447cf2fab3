"""Classes read from their files: compared with what Python itself says of them."""

import inspect
import sys

import pytest

from plugins.errors import RecipeError
from recipes.config import catalogue, own
from recipes.config.class_files import DATA, LOADERS, MISSING, MODULE, SAMPLES, STREAM, UNKNOWN, located

CODE = '''
import dataclasses
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar, Optional

import lightning as L
import torch.nn as nn
import torch.utils.data
from torch.utils.data import Dataset as Set, IterableDataset

from lightning_recipes import Data, Digits

WIDTH = 32


class Net(nn.Module):
    """A net.

    Args:
        width: channels, ≥ 1
        rate: share, in [0, 1]
    """

    def __init__(self, shape, outputs, width=WIDTH, rate: float = 1, *, kernel=(3, 3), act=nn.ReLU, depth: int | None = 2, name="a b", off=-1.5):
        super().__init__()


class Wider(Net):
    pass


class Handed(Net):
    def __init__(self, shape, outputs, extra: Optional[int] = None, **further):
        super().__init__(shape, outputs, **further)


class Pairs(Set[Any]):
    def __init__(self, size, flag=True):
        pass


class Typed(torch.utils.data.Dataset):
    pass


class Stream(IterableDataset):
    pass


class Mod(L.LightningDataModule):
    pass


class Split(Data):
    def __init__(self, rate: int = 3, **split):
        super().__init__(**split)


class Few(Digits):
    pass


@dataclass
class Made(Set):
    size: int
    noise: float = 1


@dataclass
class Base:
    classes: ClassVar[int] = 3
    names: "ClassVar" = ()
    noise: float = 0.1
    seed: int = 0


class Between(Base):
    not_a_field: int = 4


@dataclass
class Derived(Between, Set):
    width: int = 8
    noise: float = 0.5


@dataclass
class Fields(Set):
    a: int = field(default=3)
    b: list = dataclasses.field(default_factory=list)
    c: int = field(init=False)
    d: int = field(kw_only=True)
    e: InitVar[int] = 2
    _: KW_ONLY
    f: float = field(default=1, repr=False)


@dataclass
class Fixed(Fields):
    a: int = field(default=4, init=False)


if True:
    class Inner(nn.Sequential):
        def __init__(self, shape, outputs):
            super().__init__()
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "netsfile.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "own_options", {})
    monkeypatch.setattr(own, "trusted", set())
    yield tmp_path
    sys.modules.pop("netsfile", None)


def test_kinds_and_parameters_are_those_that_python_finds(place):
    read = {name: located(f"netsfile.{name}") for name in ("Net", "Wider", "Pairs", "Split", "Few", "Made", "Derived", "Inner")}
    import netsfile

    for name, found in read.items():
        taken = {n: p for n, p in inspect.signature(getattr(netsfile, name)).parameters.items() if p.kind != p.VAR_KEYWORD}
        assert set(taken) <= set(found.parameters), name
        for parameter, each in taken.items():
            default = found.parameters[parameter].default
            if each.default is each.empty:
                assert default is MISSING
            elif isinstance(each.default, type):
                assert default is UNKNOWN
            else:
                assert default == (list(each.default) if isinstance(each.default, tuple) else each.default), parameter
    assert {name: found.kind for name, found in read.items()} == {
        "Net": MODULE, "Wider": MODULE, "Pairs": SAMPLES, "Split": DATA, "Few": DATA, "Made": SAMPLES, "Derived": SAMPLES, "Inner": MODULE,
    }  # fmt: skip
    assert [located(f"netsfile.{name}").kind for name in ("Typed", "Stream", "Mod")] == [SAMPLES, STREAM, LOADERS]
    assert type(read["Net"].parameters["rate"].default) is float and not read["Net"].parameters["depth"].of_its_type
    assert {"rate", "batch_size", "folds"} <= set(read["Split"].parameters)
    assert {"extra", "width", "kernel"} <= set(located("netsfile.Handed").parameters)
    assert [*read["Derived"].parameters] == ["noise", "seed", "width"] and [*located("netsfile.Between").parameters] == [
        "noise",
        "seed",
    ]
    assert read["Net"].comments == {"width": "channels, ≥ 1", "rate": "share, in [0, 1]"} and read["Net"].told == "A net."


def test_the_fields_of_a_dataclass_are_parameters_where_python_takes_them(place):
    read = {name: located(f"netsfile.{name}") for name in ("Fields", "Fixed")}
    import netsfile

    for name, found in read.items():
        assert {*found.parameters} == {*inspect.signature(getattr(netsfile, name)).parameters}, name
    defaults = {name: each.default for name, each in read["Fields"].parameters.items()}
    assert defaults == {"a": 3, "b": UNKNOWN, "d": MISSING, "e": 2, "f": 1.0} and type(defaults["f"]) is float


def test_a_class_is_an_option_of_this_command_alone(place):
    before = set(catalogue.Catalogue().groups["model"])
    words = own.learn(["+model._target_=netsfile.py:Net", "seed=1"])
    assert words == ["model=netsfile.Net", "seed=1"] == own.learn(["model=netsfile.py:Net", "seed=1"])
    option = catalogue.Catalogue().groups["model"]["netsfile.Net"]
    assert option.parameters == {"width": 32, "rate": 1.0, "kernel": [3, 3], "depth": 2, "name": "a b", "off": -1.5}
    assert option.settable["depth"] is None and option.settable["width"] == 32
    assert own.own_words(["model=netsfile.Net", "model=mlp,netsfile.Net", "model=mlp", "model.width=3"]) == [
        "model=netsfile.Net", "model=mlp,netsfile.Net",
    ]  # fmt: skip
    assert own.unknown_words(["model=netsfile.Net", "model=netsfile.Other,mlp", "model=mlp", "data=a.b.C"]) == [
        "model=netsfile.Other,mlp", "data=a.b.C",
    ]  # fmt: skip
    config = {"model": {"_target_": "netsfile.Net", "_source_": option.node["_source_"]}, "data": {"_target_": "x.Y"}}
    assert own.typed_again(config, ["model=netsfile.Net", "data=x.Y"]) == ["data=x.Y"] and not own.changed(config)
    (place / "netsfile.py").write_text(CODE + "\n")
    own.learn(["model=netsfile.Net"])
    assert "has changed since" in own.changed(config)
    catalogue.own_options.clear()
    assert set(catalogue.Catalogue().groups["model"]) == before


@pytest.mark.parametrize(
    ("word", "file", "base"),
    [
        ("model=mine.CNN", "mine.py", "Module"),
        ("model=nets.MLP", "nets/__init__.py", "Module"),
        ("model=transformer.py:Tiny", "transformer.py", "Module"),
        ("data=my_data.CsvSet", "my_data.py", "Dataset"),
    ],
)
def test_a_class_may_be_called_like_an_option(place, word, file, base):
    (place / file).parent.mkdir(exist_ok=True)
    name = word.rpartition(":")[2].rpartition(".")[2]
    taken = "shape, outputs" if base == "Module" else ""
    (place / file).write_text(
        f"from torch.nn import Module\nfrom torch.utils.data import Dataset\n\nclass {name}({base}):\n"
        f"    def __init__(self, {taken}):\n        pass\n"
    )
    (typed,) = own.learn([word])
    group, _, named = typed.partition("=")
    assert named in catalogue.Catalogue().groups[group] and own.own_words([typed]) == [typed]


def test_a_slip_of_an_option_is_no_class(place):
    (place / "mine.py").write_text("class CNN:\n    pass\n")
    assert own.learn(["data=img.npz"]) == ["data=img.npz"] and not catalogue.own_options
    with pytest.raises(RecipeError, match=r"mine.py has no class Cnn; did you mean mine.CNN\?$"):
        own.learn(["model=mine.Cnn"])


def test_an_option_that_is_there_is_no_class(place):
    assert own.learn(["model=resnet.18", "model.width=mine.Net", "optimizer=a.B"]) == [
        "model=resnet.18",
        "model.width=mine.Net",
        "optimizer=a.B",
    ]
    assert not catalogue.own_options
    (place / "deep").mkdir()
    (place / "deep" / "a.py").touch()
    with pytest.raises(RecipeError, match="is a folder"):
        own.learn(["model=deep.Net"])
