"""Over all options of conf/: a compiled model trains what the plain one does, or the option is refused with the reason."""

import warnings
from functools import partial

import pytest
import torch
import torch._inductor.config

from plugins.base import RecipeError
from recipes.check.alone import close
from recipes.check.covering import gather
from recipes.check.harness import build, fit, merged_config, with_companions
from recipes.check.selections import everything
from recipes.check.trained import parameters

BY_THE_REAL_COMPILER = ("regularizer/dropblock", "regularizer/stochastic_depth", "wrapper/sam")
COMPILED = {"trainer.compile": True}
SHARES = 6


def refusal(name):
    """The line in which an option is refused with a compiled model, or None; nothing is compiled."""
    try:
        build(merged_config(with_companions(name), COMPILED))
    except RecipeError as error:
        return str(error)
    return None


def trained(names, folder, compiled):
    """The weights after four steps."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parameters(fit(merged_config(names, COMPILED if compiled else None), folder, 4))


def expect_equal(names, folder):
    plain, found = trained(names, folder / "plain", False), trained(names, folder / "compiled", True)
    assert found.keys() == plain.keys(), names
    assert not [key for key, value in plain.items() if not close(found[key], value)], names


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_compiled_model_trains_the_same(share, tmp_path, monkeypatch):
    """What is traced, and when anew, is what options have a part in; a backend that only traces shows it in a second each."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    refusals = {name: refusal(name) for name in everything().names}
    assert all("compile" in line and "\n" not in line for line in refusals.values() if line)
    runs = gather(everything().options, [name for name, line in refusals.items() if line is None])
    for number, names in enumerate(runs[share::SHARES]):
        expect_equal(names, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_THE_REAL_COMPILER)
def test_what_is_in_the_graph_is_right_by_the_real_compiler(name, tmp_path):
    """It draws other numbers inside of the graph, unless it is told to draw torch's own."""
    with torch._inductor.config.patch(fallback_random=True):
        expect_equal(with_companions(name), tmp_path)
