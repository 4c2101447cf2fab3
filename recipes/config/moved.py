"""Classes that have moved since a run was made: one table, so that the folders of earlier versions stay usable.

A config names classes by `_target_`. Where one of ours gets another name or another place, its old name is added here; a name that
stands here is never given to another class. `tests/test_kept_folders.py` tries it on folders of then.
"""

from __future__ import annotations

from typing import Any

MOVED = {  # what a config of before names: where it is now
    "recipes.loggers.Csv": "recipes.run.loggers.csv_files.Csv",
    "recipes.loggers.TensorBoard": "recipes.run.loggers.tensorboard.TensorBoard",
    "recipes.loggers.Wandb": "recipes.run.loggers.wandb.Wandb",
}


def renew(tree: Any) -> Any:
    """A config of any version, with the names that its classes have now; what else is in it stays as it is."""
    if isinstance(tree, dict):
        return {
            key: MOVED.get(value, value) if key == "_target_" and isinstance(value, str) else renew(value)
            for key, value in tree.items()
        }
    return [renew(value) for value in tree] if isinstance(tree, list) else tree
