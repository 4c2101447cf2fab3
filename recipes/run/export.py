"""A finished run as a file for use elsewhere, left only if it predicts what the run does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from rich.console import Console
from torch import Tensor

from plugins.base import RecipeError, Task
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EXPORT, change, read_run
from recipes.data.source import Source
from recipes.data.targets import describe
from recipes.run.exported import Exported, by_name, facts, output_name
from recipes.run.formats import FORMATS, Format, reason
from recipes.run.predictor import Member
from recipes.run.terminal import print_lines
from recipes.store.files import write_whole

TOLERANCE = 1e-5  # of a probability, and of a number relatively to the largest
COMPARED, AT_ONCE, TRACED = 128, 32, 3  # samples that are compared, that pass together, that are recorded
PLAIN = ("trainer.accelerator=cpu", "trainer.compile=false", "trainer.matmul_precision=highest")
SINGLE, DOUBLE = "32-true", "64-true"


def export(catalogue: Catalogue, folder: Path, words: Sequence[str], form: str, output: Path) -> dict[str, float]:
    """Write a run as a file, and leave it if it predicts what the run does.

    Args:
        catalogue: of the options.
        folder: of the run.
        words: that change inference, or say where the data is.
        form: onnx | torch_export | safetensors.
        output: the file.

    Returns:
        The largest difference of each output, by name.

    Raises:
        RecipeError: the run predicts what no file holds, or the file predicts something else.
    """
    config = change(catalogue, read_run(catalogue, folder), words, ON_EXPORT, "an export")
    FORMATS[form].expect_installed(form)
    precision = config["trainer"]["precision"]
    computed = DOUBLE if precision == DOUBLE else SINGLE
    member = Member(folder, [*words, *PLAIN, f"trainer.precision={computed}"], catalogue)
    which = member.setup_test(member.data)
    samples = _some_of(member.data.splits["test"])
    predicted_here = member.of_source(samples)
    tasks = {output_name(task): task for task in member.tasks}
    own = {name: predicted_here.of(task.name) for name, task in tasks.items()}
    _expect_function(member, samples)
    raw = samples.fetch(torch.arange(len(samples)))[0]
    found: dict[str, float] = {}
    module = member.module
    try:
        module.evaluation.put_weights()
        x = module.inputs_of(raw)
        model = Exported(module, tuple(x) if isinstance(x, dict) else None).eval()
        inputs = list(by_name(x).values())
        some = [_several(value) for value in inputs]
        module.data_state = dict(member.seen.get("data_state", {}))
        about = facts(raw, x, own, module, {"run": str(folder)} | ({"config": config} if form == "safetensors" else {}))
        written: Format = FORMATS[form](module, model, some)

        def write(file: IO[bytes]) -> None:
            with _told(folder, form):
                written.write(file, about)
                file.flush()
                predict = written.read(Path(file.name))
                predicted = _in_pieces(predict, inputs)
            found.update(_compared(predicted, own, tasks, form, output))

        write_whole(output, write)
    finally:
        module.evaluation.put_back()
    lines = [f"input    {name}: {_described(value)}" for name, value in by_name(x).items()]
    if module.data_state:
        lines.append(f"         {member.data.encoded}; how is told by data_state in the file")
    lines += [f"output   {name}: {describe(task)}" for name, task in tasks.items()]
    if precision != computed:
        lines.append(f"numbers  of 32 bits, where the run had trainer.precision={precision}")
    differs = max(found.values())
    lines.append(f"compared {len(samples):,} samples of {which}: differs from the run by at most {differs:.1e}")
    print_lines(Console(), *lines, f"file     {output}")
    return found


def _some_of(source: Source) -> Source:
    """Up to 128 samples from all over a split."""
    return source[torch.linspace(0, len(source) - 1, min(COMPARED, len(source))).round().long()]


def _several(value: Tensor) -> Tensor:
    """The first samples: several of them also where there is one, as the number one is taken for a fact and not for an example."""
    return value[torch.arange(TRACED) % len(value)]


def _expect_function(member: Member, samples: Source) -> None:
    """Refuse predictions that are no function of a sample: what draws masks draws others for another place in the split."""
    count = min(AT_ONCE, len(samples))
    order = torch.arange(count)
    found = member.of_source(samples[torch.cat([order.flip(0), order])]).outputs
    pairs = ((found[task.name][:count].flip(0), found[task.name][count:], task) for task in member.tasks)
    if all(_difference(*pair) <= TOLERANCE for pair in pairs):
        return
    speaking = [plugin.state_key for plugin in member.module.hooks["predict"]]
    drawing, instead = (f" ({speaking[0]})", ": type inference=none") if speaking else ("", "")
    raise RecipeError(
        f"{member.folder} predicts something else for the same sample at another place{drawing}, by random numbers or by the samples beside it, "
        f"and a file holds one function of a sample{instead}"
    )


@contextmanager
def _told(folder: Path, form: str) -> Iterator[None]:
    """Tell in one line why a format does not hold a model."""
    try:
        yield
    except (RecipeError, OSError):
        raise
    except Exception as error:  # whatever a library has raised about an operation that it does not know
        others = [
            *(["format=torch_export takes more models"] if form == "onnx" else []),
            "format=safetensors holds the weights alone",
        ]
        raise RecipeError(f"{folder} cannot be written with format={form}: {reason(error)}; {', '.join(others)}") from error


def _in_pieces(predict: Callable[..., Mapping[str, Tensor]], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a file predicts for the first sample alone, then for all others together with it, many at a time."""
    pieces = [predict(*(value[:1] for value in inputs))]
    pieces += [predict(*parts) for parts in zip(*(value[1:].split(AT_ONCE) for value in inputs), strict=True) if len(parts[0])]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _difference(one: Tensor, other: Tensor, task: Task) -> float:
    """The largest difference: of probabilities as it is, of numbers as a share of the largest of them, unless all are 0."""
    largest = float(other.abs().max()) if task.kind == "regression" else 1.0
    return float((one.double() - other.double()).abs().max() / (largest or 1.0))


def _compared(
    predicted: Mapping[str, Tensor], own: Mapping[str, Tensor], tasks: Mapping[str, Task], form: str, output: Path
) -> dict[str, float]:
    """The largest difference of each output; refuses one that is too large, or an output of another shape."""
    found = {}
    for name, values in own.items():
        there = predicted.get(name)
        if there is None or there.shape != values.shape:
            shape = None if there is None else tuple(there.shape)
            raise RecipeError(
                f"format={form} gives {name} the shape {shape}, the run predicts {tuple(values.shape)}: {output} is not written"
            )
        found[name] = _difference(there, values, tasks[name])
        if not found[name] <= TOLERANCE:  # nor NaN
            raise RecipeError(
                f"format={form} predicts {name} with a difference of {found[name]:.1e} to the run, more than {TOLERANCE:g}: {output} is not "
                f"written"
            )
    return found


def _described(value: Tensor) -> str:
    """Type and shape in words."""
    return f"{str(value.dtype).removeprefix('torch.')} (samples{''.join(f', {size}' for size in value.shape[1:])})"
