"""What is asked of a technique while it trains: it draws from the module's generators, and leaves what it is given as it is."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugins.base import Batch, Plugin, RecipeError, Refusal, Setting, Task, implementers
from recipes.check.choice import plugin_class
from recipes.check.harness import build, config_of, data_of, digits, fit, merged_config, with_companions
from recipes.check.kept import same
from recipes.check.outcome import NotAsked, expect, wrong
from recipes.engine.module import RecipeModule

SAMPLES = 48
EVALUATED = ("predict", "measure", "after_validation")
WATCHED = ("transform_batch", "penalty", "transform_losses", "transform_gradient", "after_step", *EVALUATED)


def draws_and_inputs(name: str, folder: Path) -> None:
    """No hook draws from the global generator or writes into what it is given, in a short training."""
    found = plugin_class(name)
    hooks = [hook for hook in WATCHED if found is not None and implementers([found], hook)]
    if not hooks:
        raise NotAsked("has none of the hooks " + ", ".join(WATCHED))

    def watch(module: RecipeModule) -> None:
        for plugin in module.plugins:
            for hook in hooks if isinstance(plugin, found) else ():  # type: ignore[arg-type]
                setattr(plugin, hook, _watched(hook, getattr(plugin, hook)))

    evaluated = {"trainer.val_every_n_steps": 3} if {*hooks} & {*EVALUATED} else {}
    fit(merged_config(with_companions(name), evaluated), folder, 3, prepare=watch)


def _watched(hook: str, call: Callable[..., Any]) -> Callable[..., Any]:
    names = [*inspect.signature(call).parameters]

    def watched(*arguments: Any) -> Any:
        state, given = torch.get_rng_state(), dict(zip(names, arguments, strict=False))
        before = {name: _content(argument, name) for name, argument in given.items()}
        found = call(*arguments)
        expect(
            torch.equal(torch.get_rng_state(), state),
            f"{hook} draws from torch's global generator: draw from module.generator(self.option)",
        )
        for name, argument in given.items():
            after = _tensors(argument, name)
            for place, value in before[name].items():
                instead = "batch it is given: make a new one, replace(batch, …)"
                if not isinstance(argument, Batch):
                    instead = "tensors it is given: write into a copy"
                kept = place in after and same(after[place], value)
                if not kept and place in after and after[place].shape == value.shape:
                    after[place].data.copy_(value)  # it may be of the samples that all other checks have
                expect(kept, f"{hook} writes into {place} of the {instead}")
        return found

    return watched


def _tensors(argument: Any, name: str) -> dict[str, Tensor]:
    """The tensors of an argument that a hook is given, by what they are called."""
    if isinstance(argument, Batch):
        parts = (argument.x, "x"), (argument.targets, "targets"), (argument.labels, "labels")
        return {place: value for part in parts for place, value in _tensors(*part).items()}
    if isinstance(argument, Mapping):
        return {f"{name}[{key!r}]": value for key, value in argument.items() if isinstance(value, Tensor)}
    return {name: argument} if isinstance(argument, Tensor) else {}


def _content(argument: Any, name: str) -> dict[str, Tensor]:
    return {place: value.detach().clone() for place, value in _tensors(argument, name).items()}


def changes_batches(name: str) -> bool:
    """Whether an option changes batches."""
    found = plugin_class(name)
    return found is not None and bool(implementers([found], "transform_batch"))


def plugin_of(name: str) -> tuple[Plugin, Any]:
    """The option's plugin, in a module that is built for it."""
    module = build(merged_config(with_companions(name)))
    plugin = next(plugin for plugin in module.plugins if type(plugin) is plugin_class(name))
    return plugin, module


def changed(name: str, batch: Batch, part: int = 0) -> Batch:
    """A batch as the option gives it on, as in the first step."""
    plugin, module = plugin_of(name)
    module.draws.clock = (0, part)
    return plugin.transform_batch(batch, module)


def _batch(x: Tensor, labels: Tensor) -> Batch:
    return Batch(x, {"": labels}, {"": labels}, samples=torch.arange(len(x)))


def _expect_batches_of_digits(name: str) -> None:
    if not changes_batches(name):
        raise NotAsked("does not change batches")
    if data_of(merged_config(with_companions(name))) is not digits():
        raise NotAsked("is of numbers; the digits have classes")


def batch_kept(name: str, folder: Path) -> None:
    """The batch that came in stays as it is, another comes out, and the true labels travel beside."""
    _expect_batches_of_digits(name)
    split = digits().splits["train"]
    given = _batch(split.x[:SAMPLES].clone(), split.targets[""][:SAMPLES].clone())
    kept = copy.deepcopy(given)
    plugin, module = plugin_of(name)
    after = plugin.transform_batch(given, module)
    same = torch.equal(given.x, kept.x) and torch.equal(given.targets[""], kept.targets[""])
    expect(same, "transform_batch writes into the batch it is given: make a new one, replace(batch, …)")
    some = after.samples is not None and len(after.samples) == len(after) < SAMPLES  # some of the samples, with their numbers
    labels = kept.labels[""][after.samples] if some else kept.labels[""]
    expect(torch.equal(after.labels[""], labels), "transform_batch changes the true labels: they travel beside")
    as_before = torch.equal(after.x, kept.x) and torch.equal(after.targets[""], kept.targets[""])
    beside = after.extra or after.weight  # what a technique may have added instead
    told = beside or plugin.remarks  # a technique that has nothing to do here says so
    expect(told or not as_before, "transform_batch changes nothing with its default parameters, and no remark tells why")
    expect(
        (some or len(after) == SAMPLES) and after.x.dtype == kept.x.dtype,
        "transform_batch changes the number or the kind of samples",
    )


def own_draws(name: str, folder: Path) -> None:
    """Of equal images each gets what it alone has drawn; the same step draws the same; the global random numbers are not touched."""
    _expect_batches_of_digits(name)
    x = digits().splits["train"].x[:1].expand(SAMPLES, -1, -1, -1).clone()
    labels, state = torch.arange(SAMPLES) % 2, torch.get_rng_state()
    first, second, other = (changed(name, _batch(x.clone(), labels.clone()), part) for part in (0, 0, 1))
    untouched = torch.equal(torch.get_rng_state(), state)
    expect(untouched, "transform_batch draws from torch's global generator: draw from module.generator(self.option)")
    again = torch.equal(first.x, second.x) and torch.equal(first.targets[""], second.targets[""])
    expect(
        again,
        "transform_batch makes something else of the same batch in the same step: draw from module.generator(self.option)",
    )
    if torch.equal(first.x, other.x) and torch.equal(first.targets[""], other.targets[""]):
        return  # nothing is drawn
    if len(first) < SAMPLES:
        return  # some of the samples are chosen, as they are
    target = first.targets[""]
    mixed = target.is_floating_point()
    rows = torch.cat([first.x.flatten(1), target.sort(1)[0]], 1) if mixed else first.x.flatten(1)
    expect(len(torch.unique(rows, dim=0)) > (3 if mixed else 1), "all samples of a batch share one draw")


def pictures(name: str, folder: Path) -> None:
    """What it does to images can be drawn."""
    _expect_batches_of_digits(name)
    split = digits().splits["train"]
    plugin, module = plugin_of(name)
    before = split.x[:8].clone()
    after = plugin.transform_batch(_batch(before, split.targets[""][:8].clone()), module).x
    if torch.equal(before, after):
        return  # targets alone are changed
    rows = plugin.picture(before, after)
    for row in rows or wrong("picture gives nothing to draw"):
        fits = row.ndim == 4 and row.shape[1] in (1, 3) and row.min() >= 0 and row.max() <= 1
        expect(fits, f"picture must give images (samples, 1 or 3, height, width) in [0, 1], got {tuple(row.shape)}")


def other_data(name: str, folder: Path) -> None:
    """On samples that are no images it works, or is refused in one line that names it and the fix."""
    if not changes_batches(name) or not name.startswith("augmentation/"):
        raise NotAsked("is no augmentation")
    found = plugin_class(name)
    assert found is not None
    module: Any = build(config_of([]), [])
    module.model = torch.nn.Linear(7, 3)
    setting = Setting((7,), (Task("", "classification", 3),))
    try:
        module.build([found()], setting, devices=1)
    except Refusal as refusal:
        told = str(refusal).startswith(name) and "leave" in str(refusal) and "\n" not in str(refusal)
        expect(told, f"its refusal of other data does not begin with {name} and say what to leave out: {refusal}")
        return
    except RecipeError as error:
        wrong(f"other data is no Refusal: {error}")
    x = torch.randn(6, 7)
    after = module.plugins[0].transform_batch(_batch(x, torch.randint(3, (6,))), module)
    expect(after.x.shape == x.shape, f"of samples (7,) it makes some of shape {tuple(after.x.shape[1:])}")
