"""The largest eigenvalue of the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plugins.base import Batch, Module, Panel, RecipeError, declare
from plugins.diagnostics._gradients import TakesGradients, loss_of, piece_of, trained
from plugins.diagnostics._looks import processes, summed
from plugins.passes import differentiable_twice

Product = Callable[[Tensor], Tensor]


def largest_eigenvalue(product: Product, start: Tensor, iterations: int) -> Tensor:
    """λ_max of a symmetric matrix H by power iteration, as a Rayleigh quotient: λ_max at most.

    v ← Hv / ‖Hv‖ finds the eigenvalue μ farthest from 0. Where that is negative, the one of H − μI that is farthest from 0 is λ_max − μ.

    Args:
        product: v ↦ Hv, both (n,).
        start: the first v, drawn at random.
        iterations: products; twice as many where μ is negative.
    """

    def farthest(shift: Tensor) -> Tensor:
        vector, value = start / start.norm(), shift
        for _ in range(iterations):
            image = product(vector) - shift * vector
            value = vector @ image
            vector = image / image.norm().clamp_min(torch.finfo(image.dtype).tiny)
        return value + shift

    found = farthest(start.new_zeros(()))
    return farthest(found) if bool(found < 0) else found


def _expect_whole(gradients: Sequence[Tensor | None]) -> None:
    """Raise where the graph of gradients ends in a layer that has a first derivative only: a second one would leave that out unsaid."""
    waiting = [g.grad_fn for g in gradients if g is not None]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node.name().endswith("::Error"):
                raise RuntimeError("a layer can be differentiated once only")
            waiting += [before for before, _ in node.next_functions]


def hessian_vector(loss: Tensor, parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """∇²J · v by two backward passes, (n,): the gradient of g · v, where g is the gradient of the loss by the parameters."""
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    _expect_whole(first)
    pieces = vector.split([parameter.numel() for parameter in parameters])
    terms = [(g.flatten() * v).sum() for g, v in zip(first, pieces, strict=True) if g is not None and g.requires_grad]
    if not terms:
        return torch.zeros_like(vector)
    second = torch.autograd.grad(torch.stack(terms).sum(), parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if h is None else h for h, p in zip(second, parameters, strict=True)]
    return torch.cat([each.flatten() for each in filled]).to(vector.dtype)


class Curvature(TakesGradients):
    """Log the largest eigenvalue of the Hessian of the loss of a minibatch, by power iteration.

    λ_max of ∇²J(θ) over all trained parameters, of the loss of the whole step without penalties, at the weights that the step begins with, in
    full precision. Gradient descent with the rate ε is stable along its direction as long as ε < 2/λ_max. Power iteration comes from below: a
    few products tell the size, many the digits. Costs two backward passes and a forward pass for each product at each look, and
    holds the graph of one part of a step at a time.

    Raises:
        RecipeError: a layer without second derivatives.

    Source: LeCun et al., "Efficient BackProp", 1998, section 7; lecture D.
    """

    iterations: int = declare.count(
        "products with the Hessian at a look", default=10, more="Twice as many where the largest is not the farthest from 0."
    )
    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=2000)

    def look(self, module: Module, batches: Sequence[Batch]) -> None:
        """Find the eigenvalue, and record it."""
        parameters = [*trained(module.model).values()]
        kind = torch.promote_types(parameters[0].dtype, torch.float32)
        generator = module.generator(f"{self.option} start", same_on_ranks=True)
        numbers = sum(parameter.numel() for parameter in parameters)
        start = torch.randn(numbers, generator=generator, device=generator.device, dtype=kind)
        recurrent = any(isinstance(part, nn.RNNBase) for part in module.model.modules())
        samples = sum(map(len, batches)) * processes()

        def product(vector: Tensor) -> Tensor:
            found = torch.zeros_like(vector)
            with self.aside(module), differentiable_twice(recurrent):
                for batch in batches:
                    share = len(batch) / samples
                    loss = loss_of(module, piece_of(batch, 0, len(batch)), share) * share
                    found = found + hessian_vector(loss, parameters, vector)
            return summed(found)

        try:
            found = largest_eigenvalue(product, start, self.iterations)
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            first = str(error).strip().splitlines()[0]
            raise RecipeError(
                f"{self.state_key} needs second derivatives, which {type(module.model).__name__} has not ({first}): leave it out"
            ) from error
        self.record(module, "largest_eigenvalue", found, at_once=True)

    def drawing(self) -> Sequence[Panel]:
        """The eigenvalue over the steps."""
        return [Panel("largest eigenvalue of the Hessian", "largest_eigenvalue")]
