"""Trained runs as something that predicts: `load("outputs/mine").predict(x)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from plugins.base import Plugin, RecipeError, Task
from plugins.inputs import described, fits
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.changing import ON_PREDICTION, change, read_run, shown_otherwise
from recipes.config.own import learn, typed_again, warn_of_changes
from recipes.data.arrays import as_features, as_images, as_named_input
from recipes.data.base import Data
from recipes.data.drawing import drawn_alike
from recipes.data.loaders import EvaluationLoader
from recipes.data.own import LoadersData, SamplesData
from recipes.data.source import Source
from recipes.data.split import Split
from recipes.data.targets import describe
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.module import RecipeModule
from recipes.run.build import build_data, build_plugins, load_module, on_one_device
from recipes.run.passing import expect_shape
from recipes.run.preflight import check_devices
from recipes.run.process import set_up_process
from recipes.run.trainer import make_trainer
from recipes.store.folder import best_checkpoint


@dataclass(frozen=True)
class Prediction:
    """What was predicted.

    Attributes:
        tasks: the targets.
        outputs: by task: of classes their probabilities, the softmax of the outputs, (samples, classes, *places), of several labels the
            probability of each, (samples, labels), else numbers (samples, outputs).
        ids: a name for each sample.
    """

    tasks: tuple[Task, ...]
    outputs: dict[str, Tensor]
    ids: list[str] = field(default_factory=list)

    def of(self, task: str = "") -> Tensor:
        """Probabilities or numbers of one target; without a name of the first one."""
        return self.outputs[task or self.tasks[0].name]

    def there(self, task: str = "") -> Tensor:
        """Of several labels which are predicted for each sample, truth values (samples, labels)."""
        of = next(each for each in self.tasks if each.name == (task or self.tasks[0].name))
        return self.outputs[of.name] >= of.threshold

    def labels(self, task: str = "") -> list[Any]:
        """The most probable class of each sample, by name where classes have names; a list of several labels; of a regression the numbers."""
        of = next(each for each in self.tasks if each.name == (task or self.tasks[0].name))
        found = self.outputs[of.name]
        if of.kind == "multilabel":
            names = of.names or range(of.outputs)
            return [[name for name, there in zip(names, row, strict=True) if there] for row in self.there(of.name).tolist()]
        if of.kind != "classification":
            return list(found.squeeze(1).tolist() if of.outputs == 1 else found.tolist())
        best = found.argmax(1)
        return [of.names[number] for number in best.tolist()] if of.names and best.ndim == 1 else list(best.tolist())


class Predictor:
    """One or several trained runs, whose predictions are averaged: of classes the probabilities.

    Args:
        folders: of the runs; of each the weights that validated best are taken.
        words: of a command line, that change inference, data or device, or name the classes of one's own, such as model=mine.Mine.

    Raises:
        RecipeError: a folder is no run that has validated, or the runs were trained on different targets or inputs.
    """

    def __init__(self, folders: Sequence[str | Path], words: Sequence[str] = (), catalogue: Catalogue | None = None) -> None:
        if not folders:
            raise RecipeError("expected the folder of a run")
        words = learn(words)
        self.members = [Member(Path(folder), words, catalogue or Catalogue(installed_folders())) for folder in folders]
        first, *others = self.members
        encode = all(member.data.state() and not member.data.takes_arrays for member in self.members)  # each in its own way
        for other in others:
            if not (encode or fits(other.shape, first.shape)) or other.tasks != first.tasks:
                raise RecipeError(
                    f"{other.folder} was trained on {other.described()}, {first.folder} on {first.described()}: their predictions "
                    f"cannot be averaged"
                )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The targets."""
        return self.members[0].tasks

    def predict(self, x: Any) -> Prediction:
        """What the runs predict for inputs.

        Args:
            x: an array or tensor (samples, *shape), or a dict of such, as the data has them; images as bytes or in [0, 1]; or the path of
                a file or folder of the kind that the runs were trained on.

        Raises:
            RecipeError: it does not fit what the runs were trained on.
        """
        if isinstance(x, (str, Path)):
            return self._together([member.of_data(member.data_at(Path(x))) for member in self.members])
        return self._together([member.of_source(as_source(x, member)) for member in self.members])

    def predict_data(self, elsewhere: bool) -> Prediction:
        """What the runs predict for the data of their config.

        Args:
            elsewhere: whether that is other data, of which all samples are predicted; otherwise the test split is, as of data that
                cannot be had without targets.
        """
        elsewhere = elsewhere and all(type(member.data).load_inputs is not Data.load_inputs for member in self.members)
        found = [member.of_data(member.data, elsewhere) for member in self.members]
        if not elsewhere:
            first, *others = (member.data.splits["test"].labels for member in self.members)
            alike = all(torch.equal(other[name], first[name]) for other in others for name in first)
            _expect_same_samples(alike)
        return self._together(found)

    def _together(self, found: Sequence[Prediction]) -> Prediction:
        _expect_same_samples(all(each.ids == found[0].ids for each in found))
        mean = {name: torch.stack([each.outputs[name] for each in found]).mean(0) for name in found[0].outputs}
        return Prediction(found[0].tasks, mean, found[0].ids)


def _expect_same_samples(alike: bool) -> None:
    if not alike:
        raise RecipeError("the runs have test splits of different samples: name the data, such as data.path=FILE")


class Member:
    """A run that predicts."""

    def __init__(self, folder: Path, words: Sequence[str], catalogue: Catalogue) -> None:
        self.folder = folder
        config = read_run(catalogue, folder)
        warn_of_changes(config, folder)
        self.config = on_one_device(change(catalogue, config, typed_again(config, words), ON_PREDICTION, "a prediction"))
        self.shown = shown_otherwise(config["data"], self.config["data"])
        checkpoint = best_checkpoint(folder)
        set_up_process(self.config)
        check_devices(self.config["trainer"])
        self.plugins: list[Plugin] = build_plugins(self.config)
        self.module: RecipeModule = load_module(self.config, checkpoint, self.plugins)
        self.seen: Mapping[str, Any] = load_checkpoint(checkpoint)["recipe"]
        assert self.module.setting is not None
        self.shape, self.tasks = self.module.setting.shape, self.module.setting.tasks
        self.which = ""  # the samples that were predicted last, in words
        self.data = build_data(self.config)
        self.data.load_state(dict(self.seen.get("data_state", {})))

    def described(self) -> str:
        """What it was trained on, in words."""
        return f"samples of shape {described(self.shape)} and {', '.join(map(describe, self.tasks))}"

    def data_at(self, path: Path) -> Data:
        """Data of the kind it was trained on, elsewhere."""
        if "path" not in self.config["data"]:
            raise RecipeError(f"{self.folder} was trained on data that lies at no path: give its inputs as an array")
        data = build_data({**self.config, "data": {**self.config["data"], "path": str(path)}})
        data.load_state(dict(self.seen.get("data_state", {})))
        return data

    def setup_test(self, data: Data) -> str:
        """Load what it is tested on, the split `test`; returns in words which samples these are."""
        return data.setup_test(self.seen.get("data"), self.seen.get("content"), self.shown)

    def of_data(self, data: Data, elsewhere: bool = True) -> Prediction:
        """Predictions for all samples of other data, or for the test split of that which it was trained on."""
        if elsewhere:
            with drawn_alike(data.split_seed):
                source, names = data.load_inputs(), data.ids()
            self.which = "the test split of other data" if data.inputs_of_test else "all samples"
        else:
            self.which = self.setup_test(data)
            source, names = data.splits["test"], data.ids()
            if data.held_out is not None:
                names = [names[row] if names else str(row) for row in data.held_out.tolist()]
        return self.of_source(source, names, self.config["data"])

    def of_source(self, source: Source, ids: Sequence[str] = (), asked: Mapping[str, Any] | None = None) -> Prediction:
        """Predictions for samples.

        Args:
            source: of them.
            ids: a name for each.
            asked: the parameters of the data; None: they are no files.
        """
        if not len(source):
            raise RecipeError("there is no sample to predict")
        expect_shape(str(self.folder), self.module.model, self.shape, source.shape, asked or {})
        trainer: L.Trainer = make_trainer(self.config, self.folder, [], self.plugins)
        loader = EvaluationLoader(source, self.data.eval_batch_size)
        loader.device = trainer.strategy.root_device
        batches: Any = trainer.predict(self.module, loader)
        found = {task.name: torch.cat([batch[task.name].cpu() for batch in batches]) for task in self.tasks}
        for name, values in found.items():
            if not bool(values.isfinite().all()):
                raise RecipeError(f"{self.folder} predicts numbers that are NaN or infinite{f' for {name}' if name else ''}")
        return Prediction(self.tasks, found, [*ids] or [str(number) for number in range(len(source))])


def as_source(x: Any, member: Member) -> Source:
    """Inputs of a caller as samples; refused where the run learned how to encode its data, which an array does not tell."""
    if member.data.state() and not member.data.takes_arrays:
        raise RecipeError(
            f"{member.folder} was trained on columns that it encodes: give the path of a file in place of an array"
        )
    if isinstance(x, Mapping):
        return Split({str(name): as_named_input(np.asarray(value), f"the input {name}") for name, value in x.items()}, {})
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind not in "fiub" or array.ndim < 1 or not array.size:
        raise RecipeError(f"expected numbers (samples, …), got an array of {array.dtype} of shape {array.shape}")
    shape = member.shape
    is_own = not type(member.data).__module__.startswith("recipes.") or isinstance(member.data, SamplesData | LoadersData)
    if is_own and array.dtype.kind == "f" and array.shape[1:] == shape:  # numbers of any scale, as they were trained on
        return Split(as_named_input(array, "the input"), {})
    if not isinstance(shape, Mapping) and len(shape) == 3:
        return Split(as_images(array, "the input"), {})
    if not isinstance(shape, Mapping) and len(shape) == 1 and array.ndim == 2:
        return Split(as_features(array, "the input"), {})
    return Split(as_named_input(array, "the input"), {})


def load(*folders: str | Path, words: Sequence[str] = ()) -> Predictor:
    """A trained run that predicts, or several, whose predictions are averaged.

    Args:
        folders: of the runs, such as outputs/DATE/TIME-ID.
        words: of a command line, that change inference, data or device, or name the classes of one's own, such as "model=mine.Mine".

    Raises:
        RecipeError: a folder is no run that has validated, or the runs were trained on different targets or inputs.
    """
    return Predictor(folders, words)
