"""What modules return in a pass, kept for techniques that look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Recording(dict[nn.Module, list[Tensor]]):
    """Copies of the outputs of some modules, of each call, before what techniques have attached runs; kept while it is open.

    The hooks stay when it is closed, so that a compiled model need not be compiled anew for each pass.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__({module: [] for module in modules})
        self._is_open = False
        for module, kept in self.items():
            module.register_forward_hook(self._keep(kept), prepend=True)

    def _keep(self, kept: list[Tensor]) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: Any) -> None:
            if self._is_open:
                first = output[0] if type(output) is tuple else output
                # a copy, which an operation in place behind the module leaves as it is
                kept.append(first.clone() if isinstance(first, Tensor) else first)

        return keep

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep what the modules return from here on, and nothing of before."""
        self.forget()
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False

    def forget(self) -> None:
        """Let go of what was kept."""
        for kept in self.values():
            kept.clear()
