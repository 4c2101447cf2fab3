"""What is asked of an option by itself: short trainings that must come out equal to the bit, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from plugins.base import Stage
from recipes.check.choice import node_of, plugin_class
from recipes.check.harness import build, data_of, fit, merged_config, with_companions
from recipes.check.kept import forgotten
from recipes.check.outcome import NotAsked, expect, wrong
from recipes.check.samples import first_samples
from recipes.check.trained import parameters, same_bits, weights
from recipes.engine.module import RecipeModule


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two ways of adding the same numbers have come to the same."""
    return torch.allclose(found, expected, rtol=2e-4, atol=2e-5, equal_nan=True)


def resume_and_order(name: str, folder: Path, steps: int = 6) -> None:
    """A run that is stopped and goes on ends bit for bit where it would have; the order in which options are written is free."""
    config = merged_config(with_companions(name))
    whole = resumes(config, folder, steps)
    turned = fit(config, folder / "turned", steps, reverse=True)
    differs = same_bits(weights(whole), weights(turned))
    expect(
        not differs,
        f"written in another order it trains other weights: {_listed(differs)}; does it share a stage, or draw for others?",
    )


def resumes(config: dict[str, Any], folder: Path, steps: int = 6) -> RecipeModule:
    """The run of a config, which ends bit for bit the same where it is stopped half-way and goes on."""
    whole = fit(config, folder / "whole", steps, copy_at=steps // 2)
    bad = [key for key, value in weights(whole).items() if value.is_floating_point() and not torch.isfinite(value).all()]
    expect(not bad, f"weights are not finite after {whole.steps_done} steps: {', '.join(bad)}")
    expect(whole.steps_done == steps, f"{whole.steps_done} steps instead of {steps}")
    resumed = fit(config, folder / "resumed", steps, resume=folder / "whole" / "copy.ckpt")
    expect(
        resumed.steps_done == steps,
        f"resumed at step {steps // 2} it ends after {resumed.steps_done} steps instead of {steps}",
    )
    differs = same_bits(weights(whole), weights(resumed))
    expect(
        not differs,
        f"resumed it trains other weights: {_listed(differs)}; is all state in state_dict, all that is drawn of the step?",
    )
    for before, after in zip(whole.plugins, resumed.plugins, strict=True):
        if differs := _differing(before.state_dict(), after.state_dict(), before.state_key):
            wrong(f"resumed it has another state: {_listed(differs)}")
        if difference := forgotten(before, after):
            wrong(f"resumed, {difference} in {before.state_key}: is it in state_dict?")
    changed = {key for key in whole.metrics if not _same(whole.metrics[key], resumed.metrics.get(key))}
    expect(
        whole.metrics.keys() == resumed.metrics.keys() and not changed,
        f"resumed it measures something else: {_listed(sorted(changed | (whole.metrics.keys() ^ resumed.metrics.keys())))}",
    )
    return whole


def _same(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))


def _differing(first: Any, second: Any, where: str) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [where]
        return [place for key in first for place in _differing(first[key], second[key], f"{where}.{key}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [where]
    return [] if _same(first, second) else [where]


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def strength_zero(name: str, folder: Path) -> None:
    """With the parameters of `off` a run is bit for bit the one without the option."""
    found = plugin_class(name)
    if found is None or found.off is None:
        raise NotAsked("no value of its parameters is off")
    turned_off(with_companions(name), [name], folder)


def turned_off(names: Sequence[str], off: Sequence[str], folder: Path) -> None:
    """A run with some options of which others are off is bit for bit the one without these."""
    config, values = merged_config(names), {}
    for name in off:
        found = plugin_class(name)
        assert found is not None and found.off is not None
        values[name] = found.off
        missing = sorted(set(values[name]) - set(node_of(config, name)))
        expect(not missing, f"off of {name} names parameters that its file does not have: {', '.join(missing)}")
        node_of(config, name).update(values[name])
    rest = merged_config([name for name in names if name not in off])
    plain = fit(rest, folder / "without", 5, data=data_of(config))  # what is for numbers alone is tried on numbers
    differs = same_bits(_inner(plain), _inner(fit(config, folder / "off", 5)))
    what = ", ".join(f"{name} {dict(value)}" for name, value in values.items())
    expect(not differs, f"with {what} it still trains other weights: {_listed(differs)}")


def _inner(module: RecipeModule) -> dict[str, torch.Tensor]:
    """The parameters by the names they have in the model, whatever layers stand in front of it."""
    return {key.rpartition(".model.")[2]: value for key, value in parameters(module).items()}


def initial_weights(name: str, folder: Path) -> None:
    """The weights that the model starts from are those it has without the option."""
    found = plugin_class(name)
    if found is not None and getattr(found, "stage", None) in (Stage.INIT, Stage.MEASURED):
        raise NotAsked("is there to change them")
    if name.split("/")[0] in ("model", "data"):
        raise NotAsked("there is no model without it")
    companions = with_companions(name)[1:]
    config = merged_config([name, *companions])
    without = build(merged_config(companions), data=data_of(config))
    plain = {key.rpartition("model.")[2]: value for key, value in parameters(without).items()}
    built = {key.rpartition("model.")[2]: value for key, value in parameters(build(config)).items()}
    shared = plain.keys() & built.keys()
    expect(len(shared) >= len(plain) - 1, f"parameters have lost their names: {_listed(sorted(plain.keys() - built.keys()))}")
    differs = sorted(key for key in shared if not torch.equal(plain[key], built[key]))
    expect(not differs, f"other initial weights: {_listed(differs)}; draw from a generator of your own")


def bf16(name: str, folder: Path) -> None:
    """It trains in mixed precision."""
    trains_in_bf16(merged_config(with_companions(name)), folder)


def trains_in_bf16(config: dict[str, Any], folder: Path) -> None:
    """In mixed precision weights stay in single precision, and finite."""
    config["trainer"]["precision"] = "bf16-mixed"
    trained = fit(config, folder, 3)
    for key, value in parameters(trained).items():
        expect(value.dtype == torch.float32, f"in bf16-mixed the weight {key} is {value.dtype}")
        expect(torch.isfinite(value).all(), f"in bf16-mixed the weight {key} is not finite after 3 steps")


def accumulation(name: str, folder: Path) -> None:
    """A step in two parts is the step with the whole batch, unless it draws for each part or couples samples."""
    names = with_companions(name)
    pieces = merged_config(names, {"data.batch_size": 8, "trainer.accumulate_grad_batches": 2})
    halves = fit(pieces, folder / "halves", 4)
    if _draws(pieces, folder / "drawn", halves):
        raise NotAsked("draws at random, for each piece anew")
    if _couples(halves, pieces):
        raise NotAsked("the model couples the samples of a piece, as batch normalization does")
    whole = fit(merged_config(names, {"data.batch_size": 16}), folder / "whole", 4)
    found = parameters(halves)
    differs = [key for key, value in parameters(whole).items() if not close(found[key], value)]
    if differs and _magnifies(pieces, folder / "shaken", halves):
        raise NotAsked("makes more of a rounding error than is compared here")
    expect(not differs, f"in two parts it trains other weights than with the whole batch: {_listed(differs)}")
    expect(
        not isinstance(plugin_class(name), type) or halves.metrics.keys() == whole.metrics.keys(),
        f"in two parts it has other metrics: {_listed(sorted(halves.metrics.keys() ^ whole.metrics.keys()))}",
    )


def _draws(config: dict[str, Any], folder: Path, expected: RecipeModule) -> bool:
    """Whether what is drawn at random while training and evaluating makes a difference."""

    def shift(module: RecipeModule) -> None:
        module.draws.seed += 1

    other = fit(config, folder, 4, prepare=shift)
    return bool(same_bits(weights(other), weights(expected))) or other.metrics != expected.metrics


def _magnifies(config: dict[str, Any], folder: Path, expected: RecipeModule) -> bool:
    """Whether initial weights that differ by rounding errors end far apart, as with directions that a gradient leaves open."""

    def shake(module: RecipeModule) -> None:
        with torch.no_grad():
            for parameter in module.model.parameters():
                parameter.mul_(1 + 1e-6 * torch.arange(parameter.numel()).cos().view_as(parameter))

    found = parameters(fit(config, folder, 4, prepare=shake))
    return any(not close(found[key], value) for key, value in parameters(expected).items())


def _couples(module: RecipeModule, config: dict[str, Any]) -> bool:
    """Whether the model makes something else of samples that come in two halves."""
    x = first_samples(data_of(config), 16)[0].to(next(module.model.parameters()).dtype)
    module.train()
    with torch.no_grad():
        whole, halves = module.outputs(x), [module.outputs(half) for half in x.split(8)]
    return any(
        not torch.allclose(value, torch.cat([half[task] for half in halves]), atol=1e-5) for task, value in whole.items()
    )
