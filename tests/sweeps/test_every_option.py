"""What holds for every technique, over all options found in conf/: a new one is tested by existing."""

import pytest
import torch
import yaml

from plugins.base import Stage
from tests.harness import (
    CONF,
    build,
    config_of,
    data_of,
    fit,
    is_many,
    options,
    parameters,
    plugin_class,
    same_bits,
    weights,
    with_companions,
)

WITH_STRENGTH = [name for name in options() if (found := plugin_class(name)) is not None and found.off is not None]


@pytest.mark.parametrize("name", options())
def test_trains_and_resumes_bit_for_bit_and_in_any_order(name, tmp_path):
    config = config_of(with_companions(name))
    whole = fit(config, tmp_path / "whole", 6, copy_at=3)
    assert all(torch.isfinite(value).all() for value in weights(whole).values() if value.is_floating_point())
    assert whole.steps_done == 6
    resumed = fit(config, tmp_path / "resumed", 6, resume=tmp_path / "whole" / "copy.ckpt")
    assert resumed.steps_done == 6
    assert not same_bits(weights(whole), weights(resumed))
    assert whole.metrics == resumed.metrics
    for before, after in zip(whole.plugins, resumed.plugins, strict=True):
        assert_same_state(before.state_dict(), after.state_dict(), before.state_key)
    turned = fit(config, tmp_path / "turned", 6, reverse=True)
    assert not same_bits(weights(whole), weights(turned))


def assert_same_state(first, second, where):
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_state(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second or first != first, where


@pytest.mark.parametrize("name", WITH_STRENGTH)
def test_strength_zero_changes_no_bit(name, tmp_path):
    group, option = name.split("/")
    found = plugin_class(name)
    companions = with_companions(name)[1:]
    off = config_of([name, *companions])
    node = off[group][option] if is_many(group) else off[group]
    assert set(found.off) <= set(node), f"{name}: off names parameters that the option does not have"
    node.update(found.off)
    without = fit(config_of(companions), tmp_path / "without", 5)
    turned_off = fit(off, tmp_path / "off", 5)
    inner = {key.rpartition(".model.")[2]: value for key, value in parameters(turned_off).items()}
    plain = {key.rpartition(".model.")[2]: value for key, value in parameters(without).items()}
    assert not same_bits(plain, inner)


@pytest.mark.parametrize("name", options())
def test_leaves_the_initial_weights_alone(name):
    found = plugin_class(name)
    if found is not None and getattr(found, "stage", None) == Stage.INIT:
        pytest.skip("is there to change them")
    companions = with_companions(name)[1:]
    config = config_of([name, *companions])
    without = build(config_of(companions), data=data_of(config))
    plain = {key.rpartition("model.")[2]: value for key, value in parameters(without).items()}
    built = {key.rpartition("model.")[2]: value for key, value in parameters(build(config)).items()}
    shared = plain.keys() & built.keys()
    assert len(shared) >= len(plain) - 1
    assert all(torch.equal(plain[key], built[key]) for key in shared)


@pytest.mark.parametrize("name", options())
def test_has_a_line_for_help_and_a_comment_for_each_parameter(name):
    group, option = name.split("/")
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and len(lines[0]) <= 160
    node = yaml.safe_load("\n".join(lines))
    node = node[option] if is_many(group) else node
    for parameter in set(node) - {"_target_"}:
        line = next(line for line in lines if line.strip().startswith(f"{parameter}:"))
        assert " # " in line, f"{name}: {parameter} has no comment"


PRECISE = [name for name in options() if plugin_class(name) is not None]


@pytest.mark.parametrize("name", PRECISE)
def test_trains_in_bf16_mixed(name, tmp_path):
    config = config_of(with_companions(name), "trainer.precision=bf16-mixed")
    trained = fit(config, tmp_path, 3)
    assert all(value.dtype == torch.float32 for value in parameters(trained).values())
    assert all(torch.isfinite(value).all() for value in parameters(trained).values())
