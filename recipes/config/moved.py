"""Classes that have moved since a run was made: one table, so that the folders of earlier versions stay usable.

A config names classes by `_target_`. Where one of ours gets another name or another place, its old name is added here; a name that
stands here is never given to another class, and leads straight to the one of today. `tests/test_kept_folders.py` tries it on
folders of then.
"""

from __future__ import annotations

from typing import Any

MOVED = {  # what a config of before names: where it is now
    "recipes.loggers.Csv": "recipes.run.loggers.csv_files.CsvRunLogger",
    "recipes.loggers.TensorBoard": "recipes.run.loggers.tensorboard.TensorBoardRunLogger",
    "recipes.loggers.Wandb": "recipes.run.loggers.wandb.WandbRunLogger",
    "plugins.augmentation.crop.Crop": "plugins.augmentation.crop.RandomCrop",
    "plugins.clipping.norm.Norm": "plugins.clipping.norm.ClipNorm",
    "plugins.init.kaiming_normal.KaimingNormal": "plugins.init.kaiming_normal.KaimingNormalInit",
    "plugins.init.kaiming_uniform.KaimingUniform": "plugins.init.kaiming_uniform.KaimingUniformInit",
    "plugins.init.normal.Normal": "plugins.init.normal.NormalInit",
    "plugins.init.xavier_normal.XavierNormal": "plugins.init.xavier_normal.XavierNormalInit",
    "plugins.init.xavier_uniform.XavierUniform": "plugins.init.xavier_uniform.XavierUniformInit",
    "plugins.loss.by_task.ByTask": "plugins.loss.by_task.LossByTask",
    "plugins.multitask.equal.Equal": "plugins.multitask.equal.EqualWeights",
    "plugins.preprocessing.center.Center": "plugins.preprocessing.center.CenterInputs",
    "plugins.preprocessing.standardize.Standardize": "plugins.preprocessing.standardize.StandardizeInputs",
    "plugins.regularizer.l2.L2": "plugins.regularizer.l2.L2Penalty",
    "plugins.scheduler.constant.Constant": "plugins.scheduler.constant.ConstantRate",
    "plugins.scheduler.cosine.Cosine": "plugins.scheduler.cosine.CosineDecay",
    "plugins.scheduler.linear.Linear": "plugins.scheduler.linear.LinearDecay",
    "plugins.stopping.early.Early": "plugins.stopping.early.EarlyStopping",
    "recipes.data.npz.Npz": "recipes.data.npz.NpzData",
    "recipes.models.linear.Linear": "recipes.models.linear.LinearModel",
    "recipes.models.torchvision.Torchvision": "recipes.models.torchvision.TorchvisionModel",
    "recipes.run.loggers.csv_files.Csv": "recipes.run.loggers.csv_files.CsvRunLogger",
    "recipes.run.loggers.tensorboard.TensorBoard": "recipes.run.loggers.tensorboard.TensorBoardRunLogger",
    "recipes.run.loggers.wandb.Wandb": "recipes.run.loggers.wandb.WandbRunLogger",
}


SEVERAL = ("wrapper",)  # groups that took one option then, and take several now


def renew(tree: Any) -> Any:
    """A config of any version, as it is written now: with today's names of classes, and options below their names where they were alone."""
    if isinstance(tree, dict):
        return {key: _renewed(key, value) for key, value in tree.items()}
    return [renew(value) for value in tree] if isinstance(tree, list) else tree


def _renewed(key: object, value: Any) -> Any:
    if key == "_target_" and isinstance(value, str):
        return MOVED.get(value, value)
    if key in SEVERAL and isinstance(value, dict) and isinstance(target := value.get("_target_"), str):
        return {target.rpartition(".")[0].rpartition(".")[2]: renew(value)}
    return renew(value)
