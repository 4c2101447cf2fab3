"""Model soups: the mean of the weights of trained runs (Wortsman et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plugins.base import Batch, Module, RecipeError, Refusal, Selection, Setting, declare, expect_point
from plugins.inference._measured import score
from plugins.inference._members import MEMBERS, OfMembers
from plugins.norm_statistics import measure_norms, measured_norms
from plugins.sites import statistic_sites

if TYPE_CHECKING:
    from jaxtyping import Shaped

Weights = Mapping[str, Tensor]


def mean_weights(ingredients: Sequence[Mapping[str, Shaped[Tensor, " ..."]]]) -> dict[str, Shaped[Tensor, " ..."]]:
    """1/M · Σ θ_m of each tensor by name, added up in 64 bits; of whole numbers those of the first."""
    means = {}
    for name, first in ingredients[0].items():
        precise = torch.promote_types(first.dtype, torch.float64)
        counts = not (first.is_floating_point() or first.is_complex())
        means[name] = first if counts else torch.stack([each[name].to(precise) for each in ingredients]).mean(0).to(first.dtype)
    return means


def have_same_statistics(path: str, ingredients: Sequence[Weights]) -> bool:
    """Whether a layer has the same running statistics in all runs: it is one run, or none has trained the layer."""
    names = [f"{path}.{name}" if path else name for name in ("running_mean", "running_var")]
    first = ingredients[0]
    return all(name in first and all(torch.equal(each[name], first[name]) for each in ingredients) for name in names)


class Soup(OfMembers):
    """Predict with the mean of the weights of trained runs: this one and its members, of one model.

    θ = 1/M · Σₘ θₘ, at the cost of a single model. With greedy=true runs are taken in the order of their validation accuracy (of a regression,
    error), and each is kept only if the mean with it is better on the validation split than without. Running statistics of norm layers are
    measured anew on the training split, but for those that all runs have alike, as of layers that were frozen. Runs must lie in one valley, as
    those do that start from the same trained weights: `init=from_run`. It is made when a finished run is evaluated or predicts; its own folder among the members counts once.

    Raises:
        RecipeError: a member of another model, inputs, targets or splits, or that knows what greedy=true asks; the run's own data, if needed, are gone.
        Refusal: no members; a training; regularizer=spectral_norm; greedy=true where there are quantiles without the median.

    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference
    time", ICML 2022, recipe 1.
    """

    for_finished = True

    members: str | list[str] | None = MEMBERS
    greedy: bool = declare.flag("whether a member is kept only if validation gains", default=False)

    def __post_init__(self) -> None:
        """Nothing is loaded yet."""
        self._ingredients: list[tuple[str, dict[str, Tensor]]] = []
        self._made: dict[str, Tensor] = {}

    def check(self, selection: Selection) -> None:
        """Refuse a training, whose weights are no ingredient yet."""
        if selection.setting.training_inputs is not None:
            raise Refusal(
                "inference/soup is made of finished runs: leave it out of the training, then type python evaluate.py RUN_FOLDER "
                "+inference=soup inference.members='outputs/study/*'"
            )
        if selection.has("regularizer/spectral_norm"):
            raise Refusal(
                "inference/soup takes means of weights, and regularizer=spectral_norm has vectors of which a mean says nothing: use "
                "+inference=ensemble, which takes that of predictions"
            )
        if self.greedy:
            expect_point(self.state_key, selection.setting.tasks, "use inference.greedy=false")
        super().check(selection)

    def prepare(self, setting: Setting) -> None:
        """Load the weights of the members."""
        super().prepare(setting)
        own = setting.folder and Path(setting.folder).resolve()
        for folder, module in self.loaded(setting):
            if self.greedy and module.setting.trained_on_validation:
                told = "by which members are chosen: leave it out of inference.members, or take inference.greedy=false"
                raise RecipeError(f"inference/soup: {folder} was trained on the validation samples too, {told}")
            if Path(folder).resolve() != own:
                self._ingredients.append((folder, dict(module.model.state_dict())))

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """The mean in place of the weights, which come back bit for bit."""
        kept = {name: value.clone() for name, value in module.model.state_dict().items()}
        with torch.no_grad():
            self._made = self._made or self._make(module, kept)
            module.model.load_state_dict(self._made)
        try:
            yield
        finally:
            module.model.load_state_dict(kept)

    def _make(self, module: Module, own: Weights) -> dict[str, Tensor]:
        """Choose, average and measure."""
        statistics = {name for name, *_ in statistic_sites(module.model)}
        for folder, weights in self._ingredients:
            names = {name for name, _ in module.model.named_parameters(remove_duplicate=False)}  # tied ones have several
            _expect_same_model(folder, weights, own, names | statistics)
        everything = [("this run", own), *((folder, weights) for folder, weights in self._ingredients)]
        everything = [(name, {key: value.to(module.device) for key, value in weights.items()}) for name, weights in everything]
        chosen = self._chosen(module, everything) if self.greedy else everything
        self.remarks = [f"the mean of {len(chosen)} of {len(everything)} runs: {', '.join(name for name, _ in chosen)}"]
        self._put(module, chosen)
        return {name: value.clone() for name, value in module.model.state_dict().items()}

    def _chosen(self, module: Module, everything: Sequence[tuple[str, Weights]]) -> list[tuple[str, Weights]]:
        """The greedy soup: algorithm 1 of the paper, where each has to gain."""
        ranked = [(self._put(module, [each], scored=True), place) for place, each in enumerate(everything)]
        order = [place for _, place in sorted(ranked, key=lambda pair: (-pair[0], pair[1]))]
        chosen, best = [everything[order[0]]], max(value for value, _ in ranked)
        for place in order[1:]:
            value = self._put(module, [*chosen, everything[place]], scored=True)
            if value > best:
                chosen, best = [*chosen, everything[place]], value
        return chosen

    def _put(self, module: Module, ingredients: Sequence[tuple[str, Weights]], scored: bool = False) -> float:
        """Put the mean of some weights in place, with the statistics that belong to it; how good it is in validation, where it is asked."""
        weights = [weights for _, weights in ingredients]
        module.model.load_state_dict(mean_weights(weights))
        resting = {id(layer) for path, layer in module.model.named_modules() if have_same_statistics(path, weights)}
        if any(id(layer) not in resting for layer in measured_norms(module.model)):
            measure_norms(module, self._batches(module, "train"), resting)
        return score(module, self._batches(module, "val")) if scored else 0.0

    def _batches(self, module: Any, split: str) -> Iterator[Batch]:
        if self.setting.own_samples is None:
            raise RecipeError("inference/soup measures on the run's own data: type python evaluate.py RUN_FOLDER")
        for data in self.setting.own_samples(split, module.device):
            yield module.as_batch(data)


def _expect_same_model(folder: str, weights: Weights, own: Weights, averaged: set[str]) -> None:
    """Refuse weights of other names or shapes, and a model that prepares its inputs in another way."""
    told = "choose runs of the same words of model, normalization and preprocessing"
    if odd := sorted(
        name for name in {*weights, *own} if name not in weights or name not in own or weights[name].shape != own[name].shape
    ):
        raise RecipeError(
            f"inference/soup: {folder} is of another model, only one has {', '.join(odd[:4])} of its shape: {told}"
        )
    for name in own.keys() - averaged:
        there, here = weights[name].cpu(), own[name].cpu()
        if here.is_floating_point() and not torch.allclose(there, here):
            raise RecipeError(f"inference/soup: {folder} has another {name}, which is no weight and cannot be averaged: {told}")
