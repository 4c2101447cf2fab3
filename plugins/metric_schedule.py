"""What a scheduler that goes by a metric has to do with optimizer steps."""

from __future__ import annotations


class CountsSteps:
    """A scheduler that goes by a metric, and counts optimizer steps beside: told by the engine, as it steps others."""

    def count_step(self) -> None:
        """Count a step, after all that follows an update."""
        raise NotImplementedError
