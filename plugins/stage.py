"""Where an option stands in a step. Nothing here imports torch."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """Where a technique stands in a step. The engine sorts by it, so the order in which options are written is free."""

    SELF = 0  # a model, loss, optimizer or schedule, which speaks for itself
    NORMALIZATION = 10  # the model: norm layers put in or replaced,
    LAYERS = 20  # dropout and other layers put beside the existing ones,
    HEADS = 30  # the output layer split into one head for each task,
    INIT = 40  # initial weights drawn,
    FINETUNING = 45  # which layers are trained,
    PREPROCESSING = 50  # the input layer put in front,
    MEASURED = 60  # initial weights scaled by what samples make of them
    SAMPLING = 105  # the batch: which samples it has,
    GEOMETRY = 110  # where pixels are,
    COLOUR = 120  # which colours they have,
    ERASING = 130  # which of them are there,
    NOISE = 140  # noise on them,
    SIZE = 145  # how large images are,
    TARGETS = 150  # targets softened,
    MIXING = 160  # samples mixed with each other,
    SELECTION = 162  # which of them are learned from,
    VIEWS = 165  # further views of what the stages above made,
    ADVERSARIAL = 170  # the worst case of what the stages above made,
    COUNTING = 175  # and which samples count, all as hard as they are made
    PENALTY = 210  # the objective: terms added to the loss,
    WEIGHTS = 220  # weights perturbed during a pass,
    TASKS = 230  # losses of several tasks combined
    GRADIENT = 305  # the update: the gradient projected,
    CLIPPING = 310  # shortened before the optimizer sees it,
    WRAPPER = 320  # the optimizer wrapped,
    PROJECTION = 330  # weights projected after the update,
    GUARD = 340  # a bad update undone,
    AVERAGING = 350  # weights averaged,
    STOPPING = 360  # the end of training decided
    INFERENCE = 410  # evaluation: how a prediction is made
    DIAGNOSTICS = 420  # what is only looked at
