"""Batches and settings from what a loader yields, ours or anybody's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from plugins.base import Batch, Option, RecipeError, Setting, Task
from plugins.inputs import Inputs, each, shape_of, some, unknown_ends
from plugins.sites import evaluation_mode, takes_tokens
from recipes.data.numbers import as_entry, to_unit_range
from recipes.data.source import Marked
from recipes.data.targets import as_target, by_task, expect_labels, expect_meant, kind_of, known_labels, places_of, width_of
from recipes.engine.lightning_private import loader_of
from recipes.engine.parts import Whole

log = logging.getLogger("recipes")


def dtype_of(model: nn.Module, otherwise: Any) -> Any:
    """The kind of floats that a model takes: that of its first parameter of floats."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), otherwise)


def pair(data: Any) -> tuple[Inputs, Tensor | dict[str, Tensor]]:
    """Inputs and targets of what a loader yields; anything else is refused."""
    known = isinstance(data, (tuple, list)) and len(data) == 2
    x, targets = data if known else (None, None)
    named = targets.values() if isinstance(targets, dict) else [targets]
    if (
        not (isinstance(x, Tensor) or are_named(x))
        or not named
        or not all(isinstance(target, Tensor) and target.ndim for target in named)
    ):
        got = f"a {type(data).__name__} of {len(data)}" if isinstance(data, (tuple, list, dict)) else f"a {type(data).__name__}"
        got += f" with {', '.join(map(str, data))}" if isinstance(data, dict) else ""
        raise RecipeError(
            f"a loader must yield (inputs, targets), both a tensor or a dict of tensors, targets with one entry a task; got {got}"
        )
    return x, targets  # type: ignore[return-value]


def prepared(x: Inputs, tokens: bool, dtype: Any = None) -> Inputs:
    """Inputs as the model takes them: images of bytes in [0, 1], floats of its kind; whole numbers stay such by name, and as tokens.

    Args:
        x: what a loader yields.
        tokens: whether whole numbers, other than bytes, go in as they are.
        dtype: of floats; None: theirs.
    """
    if not isinstance(x, Tensor):
        x = each(x, as_entry)
        return x if dtype is None else each(x, lambda x: x.to(dtype) if x.is_floating_point() else x)
    if not x.is_floating_point() and not (tokens and x.dtype != torch.uint8):
        x = to_unit_range(x)
    # the precisions in which the whole model is kept, such as bf16-true
    return x.to(dtype) if dtype is not None and x.is_floating_point() and x.dtype != dtype else x


def are_named(x: Any) -> bool:
    """Whether inputs are a dict of tensors of as many samples."""
    return (
        isinstance(x, dict)
        and bool(x)
        and all(isinstance(name, str) and isinstance(value, Tensor) and value.ndim for name, value in x.items())
        and len({len(value) for value in x.values()}) == 1
    )


def clean_batches(loader: Any, limit: int) -> Iterator[Any]:
    """Batches of up to `limit` training samples, from our loader or from anybody's."""
    if hasattr(loader, "evaluation_batches"):
        yield from loader.evaluation_batches(limit)
        return
    for x, targets in batches_aside(loader):
        if limit <= 0:
            return
        yield (
            each(x, lambda x: x[:limit]),  # noqa: B023 - called at once
            {name: target[:limit] for name, target in targets.items()} if isinstance(targets, dict) else targets[:limit],
        )
        limit -= len(some(x))


def batches_aside(loader: Any) -> Iterator[Any]:
    """The batches of a loader, without weights; draws for their order leave its generator and the global one as they were."""
    own = [getattr(owner, "generator", None) for owner in (loader, getattr(loader, "sampler", None))]
    states = [(generator, generator.get_state()) for generator in own if generator is not None]
    try:
        with torch.random.fork_rng(devices=[]):
            iterator = iter(_apart(loader))
            first = list(islice(iterator, 1))
        for data in chain(first, iterator):
            yield data[:2] if isinstance(data, Marked) else data
    finally:
        for generator, state in states:
            generator.set_state(state)


def _apart(loader: Any) -> Any:
    """The loader; of one whose workers stay, and which so has a single iterator for all loops, another whose workers end with the loop.

    A StepLoader may still be told where another training was.
    """
    if hasattr(loader, "untold"):
        return loader.untold()
    if not (isinstance(loader, DataLoader) and loader.persistent_workers):
        return loader
    twin = copy.copy(loader)
    vars(twin)["persistent_workers"] = False  # torch allows no other way
    return twin


def setting_from_loader(
    trainer: L.Trainer, model: nn.Module, seed: int, standardize: bool, ignored: int | None, read: set[str]
) -> Setting:
    """What a plain DataLoader tells about the data, for those who bring one of their own.

    Args:
        trainer: has the loader.
        model: tells by its outputs what the targets are.
        seed: of the run.
        standardize: whether the targets of regressions are looked at to be standardized; not where the loader has no length.
        ignored: the label that the loss leaves out; None: there is none.
        read: takes what the Trainer did, such as fit, where statistics are made of the loader's samples.

    Raises:
        RecipeError: it yields nothing, or something else than inputs and targets of as many samples; a target has no known label.
    """
    stage = str(trainer.state.fn and trainer.state.fn.value)
    loop = {"validate": trainer.validate_loop, "test": trainer.test_loop}.get(stage, trainer.fit_loop)
    loader = loader_of(loop)
    loader = loader[0] if isinstance(loader, (list, tuple)) else loader
    try:
        x, targets = pair(next(batches_aside(loader)))
    except TypeError:
        raise RecipeError("a loader must yield (inputs, targets), targets being a tensor or a dict of tensors") from None
    except StopIteration:
        raise RecipeError("the loader yields nothing: it must yield (inputs, targets)") from None
    samples, embeds = len(some(x)), takes_tokens(model)
    tokens = isinstance(x, Tensor) and embeds and not x.is_floating_point() and x.dtype != torch.uint8
    named = targets if isinstance(targets, dict) else {"": targets}
    if any(len(target) != samples for target in named.values()):
        raise RecipeError("a loader must yield as many targets as inputs")
    place = next(model.parameters(), some(x))
    with evaluation_mode(model), torch.no_grad():
        few = prepared(
            each(x, lambda x: x[:2]), embeds, dtype_of(model, some(x).dtype if some(x).is_floating_point() else torch.float32)
        )
        outputs = model(each(few, lambda x: x.to(place.device)))
    several = len(named) > 1 and isinstance(outputs, Tensor)  # heads will be made to measure
    by_name = {} if several else by_task(list(named), outputs)
    tasks = []
    for name, target in named.items():
        kind = kind_of(name, target)
        expect_meant(name, target, "give the labels as whole numbers; a regression on such numbers takes targets (samples, 1)")
        if not several:
            places = places_of(target)
            tasks.append(Task(name, kind, width_of(name, kind, by_name[name], places), shape=places))
            expect_labels(name, target, tasks[-1].outputs, ignored)
        elif kind != "classification":
            tasks.append(Task(name, kind, 1 if target.ndim == 1 else target.shape[1]))
        else:
            known = (known_labels(targets[name], ignored) for _, targets in batches_aside(loader))
            if not (classes := 1 + max((int(labels.max()) for labels in known if labels.numel()), default=-1)):
                raise RecipeError(
                    f"target {name} holds no label but {ignored}, which the loss leaves out: give it some, or leave it out"
                )
            tasks.append(Task(name, kind, classes, shape=places_of(target)))

    def training_inputs() -> Iterator[Inputs]:
        read.add(stage)
        for inputs, _ in batches_aside(loader):
            yield prepared(inputs, embeds)

    def training_targets() -> Iterator[dict[str, Tensor]]:
        read.add(stage)
        for _, given in batches_aside(loader):
            yield given if isinstance(given, dict) else {"": given}

    regression = any(task.kind == "regression" for task in tasks)
    endless = regression and not has_length(loader)
    if endless and standardize:
        log.warning("the loader has no length, so the targets are learned as they are, not standardized")
    looked_at = None if endless else training_targets
    shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else unknown_ends(shape_of(prepared(x, embeds)))
    return Setting(shape, tuple(tasks), seed, training_inputs, None, looked_at, tokens=tokens)


def instruct_loader(module: Whole, loader: Any) -> None:
    """Have the training loader give what options ask for; refused where it is a loader that cannot.

    An option may give the order of the samples while it acts, get a batch several steps in a row, or ask which samples a batch has.

    Args:
        module: is trained.
        loader: that it is trained with.
    """
    orders: Sequence[Option] = module.hooks["order"]
    repeating = [plugin for plugin in module.plugins if plugin.repeats > 1]
    numbering = [option for option in module.options if option.tells_samples_apart]
    if hasattr(loader, "sampling"):
        _expect_whole_epochs(len(loader), module.trainer)
        loader.sampling = orders[0] if orders else None
        loader.acts = lambda step: orders[0].acts((step, module.progress[1]))
        loader.repeats = max((plugin.repeats for plugin in repeating), default=1)
        loader.numbered = bool(numbering)
        loader.steps_done = lambda: module.steps_done
        return
    kind, ours = type(loader).__name__, "train with a StepLoader, or"
    wanted: dict[str, Sequence[Option]] = {
        f"gives the order of the samples, and a {kind} has one of its own: {ours} give the loader a sampler and": orders,
        f"trains several steps in a row on each batch, and a {kind} gives it once: {ours}": repeating,
        f"needs to know which sample is which, and a {kind} does not tell: {ours}": numbering,
    }
    for what, asking in wanted.items():
        for option in asking:
            raise RecipeError(f"{option.state_key} {what} leave {option.option} out")


def _expect_whole_epochs(steps: int, trainer: L.Trainer) -> None:
    """Refuse to take so few steps of a pass over the data that its last ones would be an epoch by themselves, which is not validated."""
    limit = trainer.limit_train_batches
    taken = min(steps, limit) if isinstance(limit, int) else int(steps * limit)
    if taken and steps % taken and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise RecipeError(
            f"limit_train_batches={limit} takes {taken} of the {steps} steps of a StepLoader's epoch, which it does not divide: use "
            f"max_steps, with val_check_interval={taken} and check_val_every_n_epoch=None"
        )


def is_there(batch: Any, device: torch.device) -> bool:
    """Whether a batch is of our form, (inputs, a dict of targets), and all of it on a device."""
    if not (isinstance(batch, tuple) and (len(batch) == 2 or isinstance(batch, Marked)) and isinstance(batch[1], dict)):
        return False
    x, targets, *more = batch
    inputs = (x,) if isinstance(x, Tensor) else x.values() if isinstance(x, dict) else (x,)
    told = [value for value in more if isinstance(value, Tensor)]
    return all(isinstance(value, Tensor) and value.device == device for value in (*inputs, *targets.values(), *told))


def has_length(loader: Any) -> bool:
    """Whether a loader tells how many batches it has."""
    try:
        return len(loader) >= 0
    except (TypeError, NotImplementedError):
        return False


def as_batch(
    data: Any,
    tasks: Sequence[Task],
    dtype: torch.dtype,
    takes_tokens: bool,
    looked_at: bool,
    ignored: Mapping[str, int],
) -> Batch:
    """A batch from what a loader yields: (inputs, targets), targets being a tensor or a dict with one entry a task; ours may tell more.

    Args:
        data: what it yields.
        tasks: of the run.
        dtype: of the floats that the model takes.
        takes_tokens: whether whole numbers go in as they are.
        looked_at: whether the targets were checked as a whole, when the data was loaded.
        ignored: labels that losses leave out, by task: such samples get the weight 0 and another target, which techniques take for any.

    Raises:
        RecipeError: it is something else, or its targets are not those of the tasks.
    """
    x, given = pair(data[:2] if isinstance(data, Marked) else data)
    named = {tasks[0].name: given} if isinstance(given, Tensor) else given
    if set(named) != {task.name for task in tasks}:
        raise RecipeError(f"a batch has the targets {', '.join(named)}, expected {', '.join(task.name for task in tasks)}")
    labels = {}
    for task in tasks:
        target = named[task.name]
        labels[task.name] = as_target(task, target, looked_at and target.is_cuda, ignored.get(task.name))
    batch = Batch(prepared(x, takes_tokens, dtype), dict(labels), labels)
    for name, label in ignored.items():
        left_out = labels[name] == label
        if left_out.is_cuda or bool(left_out.any()):  # a GPU would be waited for
            batch.targets[name] = labels[name].masked_fill(left_out, 0)
            batch.weight[name] = (~left_out).float()
    if isinstance(data, Marked):
        batch.samples, batch.epoch, batch.correction = data.samples, data.epoch, data.correction
        if (weight := data.weight) is not None:
            for task in tasks:
                batch.weight = batch.weighted(task.name, weight)
    return batch
