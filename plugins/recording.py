"""What modules return in a pass, kept for techniques that look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


class Recording(dict[nn.Module, list[Tensor]]):
    """Copies of the outputs of some modules, of each call, before what techniques have attached runs; kept while it is open.

    Args:
        modules: whose outputs may be asked for.
        stays: leave the hooks on when it is closed: of a compiled model, which takes in those of its first pass; without, a pass that is
            not recorded costs nothing.
    """

    def __init__(self, modules: Iterable[nn.Module], stays: bool = False) -> None:
        super().__init__({module: [] for module in modules})
        self._stays, self._open = stays, set[nn.Module]()
        if stays:
            for module in self:
                self._attach(module)

    def _attach(self, module: nn.Module) -> Any:
        return module.register_forward_hook(self._keep(self[module]), prepend=True)

    def _keep(self, kept: list[Tensor]) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: Any) -> None:
            if module in self._open:
                first = output[0] if type(output) is tuple else output
                # a copy, which an operation in place behind the module leaves as it is
                kept.append(first.clone() if isinstance(first, Tensor) else first)

        return keep

    @contextmanager
    def opened(self, modules: Iterable[nn.Module] | None = None) -> Iterator[None]:
        """Keep what the modules, or some of them, return from here on, and nothing of before."""
        self.forget()
        self._open = set(self if modules is None else modules)
        with ExitStack() as attached:
            if not self._stays:
                for module in self._open:
                    attached.enter_context(self._attach(module))
            try:
                yield
            finally:
                self._open = set()

    def forget(self) -> None:
        """Let go of what was kept."""
        for kept in self.values():
            kept.clear()
