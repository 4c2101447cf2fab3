"""Shapes that the mathematics of the techniques declares are checked in tests, and cost users nothing."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from tests import shapes

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "plugins").glob("*/*.py")
    if path.name != "__init__.py"
)


def declaring():
    """All functions that declare shapes, as "module:function"."""
    for name in MODULES:
        if shapes.DECLARED.search((ROOT / f"{name.replace('.', '/')}.py").read_text()):
            for own, value in vars(import_module(name)).items():
                if inspect.isfunction(value) and value.__module__ == name and hasattr(value, "__wrapped__"):
                    yield f"{name}:{own}"


def test_the_mathematics_of_most_groups_declares_shapes():
    found = list(declaring())
    assert len(found) >= 20
    groups = {name.split(".")[1] for name in found}
    assert groups >= {"regularizer", "augmentation", "adversarial", "averaging", "clipping", "wrapper"}


def test_a_wrong_shape_is_caught():
    from plugins.augmentation._mixing import mix
    from plugins.augmentation.crop import crop
    from plugins.regularizer.label_smoothing import smooth

    x, share = torch.randn(4, 3, 8, 8), torch.rand(4)
    mix(x, x, share)
    for wrong in ((x, x[:3], share), (x, x, share[:3]), (x, x, share[:3, None]), (x.long(), x, share)):
        with pytest.raises(TypeCheckError):
            mix(*wrong)
    place = torch.zeros(4, dtype=torch.long)
    assert crop(x, place, place, 1, 8, 8).shape == x.shape
    for wrong in ((x[0], place, place), (x, place[:1], place), (x, place.float(), place)):
        with pytest.raises(TypeCheckError):
            crop(*wrong, 1, 8, 8)
    with pytest.raises(TypeCheckError):
        smooth(torch.zeros(3), 3, 0.1)


def test_a_result_of_a_wrong_shape_is_caught():
    namespace = {"Tensor": torch.Tensor, "__name__": "elsewhere"}
    source = (
        "from __future__ import annotations\ndef mean(x: Float[Tensor, 'samples features']) -> Float[Tensor, ' samples']:\n"
    )
    exec(source + "    return x.mean(0)\n", namespace)
    assert shapes.declares_shapes(namespace["mean"])
    with pytest.raises(TypeCheckError):
        shapes.checked(namespace["mean"])(torch.randn(3, 2))
    exec(source + "    return x.mean(1)\n", namespace)
    assert shapes.checked(namespace["mean"])(torch.randn(3, 2)).shape == (3,)


@pytest.mark.slow
def test_users_need_no_library_for_it():
    code = (
        "import sys\n"
        "sys.modules.update({'jaxtyping': None, 'beartype': None})\n"  # as if they were not installed
        "from importlib import import_module\n"
        f"for name in {MODULES}: import_module(name)\n"
        "from plugins.augmentation._mixing import mix\n"
        "assert not hasattr(mix, '__wrapped__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_compiled_is_the_function_itself():
    from plugins.augmentation._mixing import mix

    x, share = torch.randn(4, 3), torch.rand(4)
    graph = torch.compile(mix, backend="eager", fullgraph=True)
    assert torch.equal(graph(x, x.flip(0), share), mix(x, x.flip(0), share))
