"""The files that a trained run can be written as: how each is written, and how what it predicts is asked."""

from __future__ import annotations

import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from plugins.base import RecipeError
from recipes.config.errors import first_line
from recipes.engine.module import RecipeModule
from recipes.run.exported import INPUT, SAMPLES, Exported

LARGEST_ONNX = 2**31 - 2**20  # bytes of weights: protobuf, in which ONNX is written, ends at 2 GiB


class Format(ABC):
    """A format of files.

    Args:
        module: of the run, in evaluation mode with the weights that are evaluated.
        model: the same as a function of its inputs.
        examples: inputs of the model, of at least two samples.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, module: RecipeModule, model: Exported, examples: Sequence[Tensor]) -> None:
        self.module, self.model, self.examples = module, model, tuple(examples)

    @classmethod
    def expect_installed(cls, name: str) -> None:
        """Refuse a format whose packages are not there."""
        if lacking := [package for package in cls.packages if find_spec(package) is None]:
            raise RecipeError(f'format={name} needs {", ".join(lacking)}: pip install -e ".[export]"')

    @abstractmethod
    def write(self, file: IO[bytes], facts: Mapping[str, str]) -> None:
        """Write the model and what there is to know about it."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """What a file predicts: a function from inputs, (samples, *shape) each, to outputs by name."""


class Traced(Format):
    """A format of operations, recorded in a pass in which the number of samples is not known."""

    def program(self) -> torch.export.ExportedProgram:
        """The recorded pass."""
        samples = torch.export.Dim(SAMPLES, min=1)
        shapes = {"inputs": tuple({0: samples} for _ in self.examples)}
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one operation of torch's own, which no other library has
        try:
            with torch.no_grad(), _quiet():
                return torch.export.export(self.model, self.examples, dynamic_shapes=shapes)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


class TorchExport(Traced):
    """A program of torch's own, which needs none of this project: `torch.export.load(FILE).module()(x)`."""

    def write(self, file: IO[bytes], facts: Mapping[str, str]) -> None:
        """Write program, weights and, as extra files, the facts."""
        content = io.BytesIO()
        torch.export.save(self.program(), content, extra_files=dict(facts))
        file.write(content.getbuffer())

    def read(self, path: Path) -> Any:
        """The program that the file holds."""
        with path.open("rb") as file:
            program = torch.export.load(io.BytesIO(file.read())).module()

        @torch.no_grad()
        def predict(*inputs: Tensor) -> Mapping[str, Tensor]:
            return program(*inputs)

        return predict


class Onnx(Traced):
    """A graph for onnxruntime and whatever else reads ONNX, with the facts as its metadata."""

    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, file: IO[bytes], facts: Mapping[str, str]) -> None:
        """Write graph, weights and metadata."""
        size = sum(value.numel() * value.element_size() for value in self.model.state_dict().values())
        if size > LARGEST_ONNX:
            raise RecipeError(
                f"format=onnx: weights of {size / 2**30:.1f} GiB fit no file of ONNX, which ends at 2 GiB: type format=torch_export"
            )
        inputs, outputs = list(_inputs_of(self.model)), list(self.model.output_names.values())
        with _quiet():
            made = torch.onnx.export(self.program(), dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
        assert made is not None
        made.model.metadata_props.update(facts)
        file.write(made.model_proto.SerializeToString())

    def read(self, path: Path) -> Any:
        """The graph as onnxruntime computes it."""
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        names, outputs = _inputs_of(self.model), [each.name for each in session.get_outputs()]

        def predict(*inputs: Tensor) -> Mapping[str, Tensor]:
            given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            return dict(zip(outputs, map(torch.from_numpy, session.run(None, given)), strict=True))

        return predict


class SafeTensors(Format):
    """The weights and buffers alone, with the config to build their model from: what computes with them is this project, or your own code."""

    packages = ("safetensors",)

    def write(self, file: IO[bytes], facts: Mapping[str, str]) -> None:
        """Write the tensors and, as metadata, the facts."""
        from safetensors.torch import save

        # copies, as no two may share memory: tied weights are there twice
        weights = {name: value.detach().clone().contiguous() for name, value in self.module.state_dict().items()}
        file.write(save(weights, metadata=dict(facts)))

    def read(self, path: Path) -> Any:
        """The run's model, with the weights of the file alone."""
        from safetensors.torch import load_file

        with torch.no_grad():
            for value in self.module.state_dict().values():
                if value.is_floating_point():
                    value.fill_(torch.nan)  # none of those that were there may be left
        self.module.load_state_dict(load_file(path))
        return torch.no_grad()(self.model)


FORMATS: dict[str, type[Format]] = {"onnx": Onnx, "torch_export": TorchExport, "safetensors": SafeTensors}


def _inputs_of(model: Exported) -> tuple[str, ...]:
    return model.names or (INPUT,)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what libraries tell of their own ways: what counts comes as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # where torch prints the pass that it gave up
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def reason(error: BaseException) -> str:
    """Why a model cannot be recorded, in a line: the innermost error says it, those around it that something has failed."""
    while (inner := error.__cause__) is not None:
        error = inner
    return first_line(error)
