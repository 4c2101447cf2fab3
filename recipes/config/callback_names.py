"""Lightning's own callbacks: which are right here, which from Python only, and what takes the place of the others.

Nothing here imports torch. `docs/callbacks.md` shows the same as a table, and a test holds both to what Lightning has.
"""

from __future__ import annotations

import re

# Wrong with manual optimization, or with a step that is one batch: by class, the reason with what to type instead.
REFUSED = {
    "BackboneFinetuning": "it adds parameters to the optimizer that are there already, and freezes again after a resume: freeze "
    "with requires_grad_(False) before the training",
    "BaseFinetuning": "it adds parameters to the optimizer that are there already, and freezes again after a resume: freeze with "
    "requires_grad_(False) before the training",
    "BatchSizeFinder": "a step is one batch, so the batch size is part of what is compared: set it (data.batch_size=64), and cut "
    "it into parts if memory is short (trainer.accumulate_grad_batches=2, RecipeModule(parts=2))",
    "GradientAccumulationScheduler": "Lightning accumulates over batches in automatic optimization only, and a step here is one "
    "batch: cut it into parts (trainer.accumulate_grad_batches=2, RecipeModule(parts=2))",
    "LearningRateFinder": "it trains with schedules that manual optimization never steps: compare runs "
    "(python train.py -m optimizer.lr=0.001,0.01,0.1)",
}
# Right in a Trainer of one's own, but not in a run: by class, what a run has in its place.
IN_PYTHON_ONLY = {
    "BasePredictionWriter": "type python predict.py RUN_FOLDER",
    "EMAWeightAveraging": "type +averaging=ema",
    "LambdaCallback": "write a class, and an option file for it in FOLDER/callback with --config-dir FOLDER",
    "ModelCheckpoint": "a run keeps best.ckpt, by trainer.monitor, and last.ckpt, every trainer.save_every_n_steps steps",
    "ModelPruning": "its weights have other names in best.ckpt than in the model; it works with a L.Trainer of your own",
    "ModelSummary": "type +callback=rich_model_summary",
    "OnExceptionCheckpoint": "a run keeps last.ckpt, every trainer.save_every_n_steps steps",
    "ProgressBar": "type trainer.progress=true",
    "RichProgressBar": "type trainer.progress=true",
    "SpikeDetection": "type +guard=nan_rollback",
    "StochasticWeightAveraging": "its average comes after the last validation, so that no best model has it: type +averaging=ema",
    "TQDMProgressBar": "type trainer.progress=true",
    "ThroughputMonitor": "result.json of a run has samples_per_second",
    "WeightAveraging": "type +averaging=ema",
}
BASES = ("Callback", "Checkpoint")  # to write callbacks of one's own with


def as_option(name: str) -> str:
    """A class name as the name of an option: EMAWeightAveraging is ema_weight_averaging."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def instead_of(option: str) -> str | None:
    """Why there is no option for a callback of Lightning's, and what to type instead; None for any other name.

    Class names are understood as well as names of options.
    """
    for refused, reason in (*REFUSED.items(), *IN_PYTHON_ONLY.items()):
        if as_option(option).replace("_", "") == refused.lower():
            return f"Lightning's {refused} is not for a run: {reason}"
    return None
