"""Whether a larger value of a metric is better: the one place that knows. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

MODES = ("max", "min")  # what is best
LARGER = {
    "acc", "accuracy", "f1", "fbeta", "precision", "recall", "sensitivity", "specificity", "auc", "auroc", "auprc", "ap",
    "map", "average_precision", "r2", "iou", "miou", "dice", "jaccard", "kappa", "mcc", "psnr", "ssim", "bleu", "rouge",
    "pearson", "spearman", "kendall", "correlation", "explained_variance", "likelihood", "reward", "success",
}  # fmt: skip
SMALLER = {
    "loss", "error", "err", "mse", "rmse", "mae", "mape", "smape", "msle", "rmsle", "nll", "ce", "bce", "cross_entropy",
    "perplexity", "ppl", "ece", "mce", "ace", "brier", "calibration", "deviance", "hinge", "hamming", "wer", "cer", "fid",
    "kl", "kld", "divergence", "distance", "regret", "miss", "misclassification",
}  # fmt: skip


def larger_is_better(metric: str, declared: Mapping[str, str] | None = None) -> bool | None:
    """Whether a larger value of a metric is better; None where nobody knows.

    What is declared comes first: by the whole name, by the name without its split, by its last part. Else it is known from the
    words of the last part where all of them that say something agree: `val/acc_pgd`, `test/digit/macro_f1`, `val/mean_error`. The
    gap between training and validation of anything is better when smaller.

    Args:
        metric: SPLIT/NAME or SPLIT/TASK/NAME.
        declared: "max" or "min" by name.
    """
    within, last = metric.partition("/")[2] or metric, metric.rpartition("/")[2]
    for name in (metric, within, last):
        if declared and name in declared:
            return declared[name] == "max"
    lowered = last.lower()
    words = {*re.split(r"[_\W]+", lowered), *(name for name in LARGER | SMALLER if "_" in name and name in lowered)}
    words |= {word.rstrip("0123456789") for word in words if word[:-1].isalpha()}  # such as acc5
    if metric.lower().partition("/")[0] in {"gap", "generalization_gap"} or "gap" in re.split(r"[_\W]+", lowered):
        return False
    if {"log", "likelihood"} <= words and words & {"neg", "negative"}:
        return False
    larger, smaller = bool(words & LARGER), bool(words & SMALLER)
    return larger if larger != smaller else None


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share that is written in percent: `val/acc`, `val/acc_pgd`, `val/digit/acc`."""
    name = metric.rpartition("/")[2]
    return name == "acc" or name.startswith("acc_")
