"""Whether a model is compiled, and what compiled models need."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from torch import nn


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is compiled: as a module, or one of its methods."""
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        or _is_compiled_function(vars(module).get("forward"))
        or _has_compiled_methods(cast(Any, type(module)))
        for module in model.modules()
    )


def _is_compiled_function(value: object) -> bool:
    return hasattr(value, "_torchdynamo_orig_callable") and not getattr(value, "_torchdynamo_disable", False)


@cache
def _has_compiled_methods(kind: Any) -> bool:
    return any(_is_compiled_function(value) for each in kind.__mro__ for value in vars(each).values())


def keep_compiled_graphs() -> None:
    """Have what is compiled from now on keep what a second gradient of one forward pass needs, which the first would overwrite."""
    import torch._functorch.config as compiler

    compiler.donated_buffer = False
