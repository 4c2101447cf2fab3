"""DropCluster: DropBlock for point clouds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plugins.activations import passage
from plugins.base import Plugin, Refusal, Stage, declare
from plugins.hidden import hidden_sites
from plugins.neighbours import nearest
from plugins.sites import attach, expect_training, innermost, own_modules

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

STEPS = 8  # of Newton's method, which converges from the first on


def centre_rate(
    p: float, members: Float[Tensor, "samples points"], there: Bool[Tensor, "samples points"]
) -> Float[Tensor, " samples"]:
    """The probability γ of a centre at each point with which the expected share of dropped points is p.

    A point of m clusters stays with probability (1 − γ)^m, so γ solves mean (1 − γ)^m = 1 − p over the points that are there; without overlap
    it is p/k. Newton's method in t = −ln(1 − γ), in which the mean is convex, rises to the solution.
    """
    if p == 1:
        return torch.ones(len(members), device=members.device)
    weight = there / there.sum(1, keepdim=True).clamp_min(1)
    t = -math.log1p(-p) / (weight * members).sum(1).clamp_min(1)  # where all points have as many clusters
    for _ in range(STEPS):
        stays = weight * torch.exp(-members * t.unsqueeze(1))
        t = t + (stays.sum(1) - (1 - p)) / (stays * members).sum(1).clamp_min(1e-12)
    return -torch.expm1(-t)


def clusters_of(
    points: Float[Tensor, "samples coordinates points"], there: Bool[Tensor, "samples points"], k: int
) -> tuple[Int[Tensor, "samples points k"], Bool[Tensor, "samples points k"]]:
    """For each point the k that are nearest to it, itself the first, and which of them there are."""
    index = nearest(points, min(k, points.shape[2]), there)
    return index, there.gather(1, index.flatten(1)).view(index.shape) & there.unsqueeze(-1)


def counted(
    index: Int[Tensor, "samples points k"], within: Bool[Tensor, "samples points k"]
) -> Float[Tensor, "samples points"]:
    """Of how many of some clusters each point is a member."""
    found = torch.zeros(index.shape[:2], device=index.device)
    return found.scatter_add_(1, index.flatten(1), within.flatten(1).float())


def drop_points(
    x: Float[Tensor, "samples channels points *further"],
    dropped: Bool[Tensor, "samples points"],
    there: Bool[Tensor, "samples points"],
) -> Float[Tensor, "samples channels points *further"]:
    """Zero the features of dropped points, and multiply those of the others by all / kept of the sample. Shape kept."""
    kept = there & ~dropped
    factor = there.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1) * ~dropped
    return x * factor.view(len(x), 1, -1, *[1] * (x.ndim - 3)).to(x.dtype)


class Clusters(nn.Module):
    """The clusters of the points that a model is given: looked for once a pass, in training, for the layers that drop them.

    Args:
        model: whose `parts` tells points and mask in what it is given.
        p: share of points that is dropped.
        k: points of a cluster.
    """

    def __init__(self, model: nn.Module, p: float, k: int) -> None:
        super().__init__()
        self.parts: Any = model.parts
        self.p, self.k = p, k
        self.found: tuple[Tensor, ...] = ()

    def forward(self, inputs: Any) -> Any:
        """Find them; the inputs stay as they are."""
        self.found = ()
        if self.training:
            points, there = self.parts(inputs)
            there = torch.ones_like(points[:, 0], dtype=torch.bool) if there is None else there
            index, within = clusters_of(points, there, self.k)
            self.found = index, within, there, centre_rate(self.p, counted(index, within), there)
        return inputs

    def draw(self) -> tuple[Tensor, Tensor]:
        """Which points are dropped, and which there are."""
        index, within, there, rate = self.found
        centres = torch.rand(there.shape, device=there.device) < rate.unsqueeze(1)
        return counted(index, within & centres.unsqueeze(-1)) > 0, there


class DropClusterLayer(nn.Module):
    """The layer that :class:`DropCluster` puts after an activation."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__()
        self.clusters = [clusters]  # which is a child of the model, and not of this

    def forward(self, x: Tensor) -> Tensor:
        """Drop clusters in training."""
        clusters = self.clusters[0]
        return drop_points(x, *clusters.draw()) if self.training and clusters.found else x


class DropCluster(Plugin):
    """Drop neighbouring points together at random during training: single ones are not missed, as their neighbours tell the same.

    A point is a centre with probability γ, and all features of the k points that are nearest to a centre, itself among them, are 0, so that in
    expectation the share p of the points is dropped; the others are multiplied by the number of points over that of kept ones. Neighbours
    are found by the coordinates of the inputs, clusters are drawn for each sample and layer. A mask leaves points out as the model does.

    It acts on hidden activations that have features for each point, in model=pointnet, model=dgcnn and any other whose `parts(inputs)` gives
    coordinates (samples, coordinates, points) and a mask (samples, points), or None.

    Shapes:
        activations: (samples, channels, points, ...).

    Raises:
        Refusal: a model that knows no points.
        RecipeError: no such activation, or one that is made by a function and returned by no module.

    Source: Ghiasi et al., "DropBlock", NeurIPS 2018, for squares; lecture B, DGCNN with DropCluster, for points.
    """

    stage = Stage.LAYERS

    p: float = declare.share("share of points that is dropped", default=0.1, off=0.0)
    neighbours: int = declare.count("points of a cluster, its centre among them", default=8)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Look for clusters in front of the model, and put a layer after each activation that has features for each point."""
        parts = (innermost(part, 0) for _, part in own_modules(model))
        source = next((part for part in parts if callable(getattr(part, "parts", None))), None)
        if source is None:
            raise Refusal(
                f"{self.state_key} drops points, and {type(model).__name__} knows none: type data=points model=pointnet, or model=dgcnn, or "
                f"leave it out"
            )
        points: Any = source.shape
        places = hidden_sites(
            model,
            passage(model, self.setting.shape),
            self.state_key,
            acts=lambda place: len(place.shape) > 2 and place.shape[2] == points[0],
            narrows=False,
        )
        expect_training(self.state_key, model, [module for _, module in places])
        clusters = Clusters(source, self.p, self.neighbours)
        attach(source, self.option, clusters, before=True)
        for _, host in places:
            attach(host, self.option, DropClusterLayer(clusters))
        return model
