"""Over all options of conf/: a compiled model trains what the plain one does, or the option is refused with the reason."""

import warnings
from functools import partial

import pytest
import torch
import torch._inductor.config

from plugins.base import RecipeError
from recipes.check.alone import close
from recipes.check.choice import options
from recipes.check.harness import fit, merged_config, with_companions
from recipes.check.trained import parameters

BY_THE_REAL_COMPILER = ("regularizer/dropblock", "regularizer/stochastic_depth", "wrapper/sam")


def trained(name, folder, compiled):
    """The weights after four steps."""
    torch.compiler.reset()
    config = merged_config(with_companions(name), {"trainer.compile": compiled})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parameters(fit(config, folder, 4))


def expect_equal(name, folder):
    plain, found = trained(name, folder / "plain", False), None
    try:
        found = trained(name, folder / "compiled", True)
    except RecipeError as refusal:
        told = str(refusal)
    if found is None:
        assert "compile" in told and "\n" not in told
        return
    assert found.keys() == plain.keys()
    assert not [key for key, value in plain.items() if not close(found[key], value)]


@pytest.mark.slow
@pytest.mark.parametrize("name", options())
def test_a_compiled_model_trains_the_same(name, tmp_path, monkeypatch):
    """What is traced, and when anew, is what options have a part in; a backend that only traces shows it in a second each."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    expect_equal(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_THE_REAL_COMPILER)
def test_what_is_in_the_graph_is_right_by_the_real_compiler(name, tmp_path):
    """It draws other numbers inside of the graph, unless it is told to draw torch's own."""
    with torch._inductor.config.patch(fallback_random=True):
        expect_equal(name, tmp_path)
