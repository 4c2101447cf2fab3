"""The hooks of the contract, in one table: when each is called, who may define it, and how `explain=true` tells of it.

A new hook is a row here, a method of `Option` with its docstring, and the place in the engine that calls it. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

BUILD, STEP, EVALUATION, END = "build", "step", "evaluation", "end"


@dataclass(frozen=True)
class Hook:
    """A method that an option may define.

    Attributes:
        name: of the method.
        moment: "build" (once, before the first batch), "step", "evaluation" or "end" (once a fit has ended). Those of a step are left
            out while the option does not act (`Option.when`).
        alone: whether one option at most may define it in a run.
        sees_weights: whether it sees weights, gradients or their state as a process keeps them: only a part of each under trainer=fsdp.
        sees_inputs: whether it is given inputs, which may be several tensors by name.
        sees_targets: whether it is given targets or outputs, which may have a class for each place.
        label: the word in front of it in the plan of a step; "" where the plan leaves it out.
        told: what the plan says of it.
    """

    name: str
    moment: str
    alone: bool = False
    sees_weights: bool = True
    sees_inputs: bool = False
    sees_targets: bool = False
    label: str = ""
    told: str = ""


HOOKS = (  # in the order in which they are called
    Hook("check", BUILD, sees_weights=False),
    Hook("prepare", BUILD, sees_weights=False),
    Hook("transform_model", BUILD, sees_weights=False),
    Hook("trainer_arguments", BUILD, sees_weights=False),
    Hook("group_parameters", BUILD, sees_weights=False),
    Hook(
        "order",
        STEP,
        sees_targets=True,
        alone=True,
        sees_weights=False,
        label="samples",
        told="which an epoch takes, in which order",
    ),
    Hook(
        "transform_batch",
        STEP,
        sees_inputs=True,
        sees_targets=True,
        sees_weights=False,
        label="batch",
        told="once a step, drawn once",
    ),
    Hook("picture", STEP, sees_weights=False),
    Hook("around_pass", STEP, sees_inputs=True, sees_targets=True, label="weights", told="during the pass"),
    Hook("records", STEP, sees_weights=False),
    Hook(
        "transform_losses",
        STEP,
        sees_inputs=True,
        sees_targets=True,
        sees_weights=False,
        label="loss",
        told="that of each task changed",
    ),
    Hook("combine", STEP, alone=True, label="loss", told="the losses of all tasks as one"),
    Hook("penalty", STEP, sees_inputs=True, sees_targets=True, label="loss", told="added to it"),
    Hook("aggregate", STEP, alone=True, label="gradient", told="those of all tasks as one"),
    Hook("wrap_optimizer", STEP, label="wrapper", told="may repeat the pass: same batch, same masks"),
    Hook("transform_gradient", STEP, label="gradient", told="right before the update"),
    Hook("after_step", STEP, label="after", told="right after the update"),
    Hook("evaluation_weights", EVALUATION, alone=True, label="weights", told="in place while evaluating and saving"),
    Hook(
        "calibrate",
        EVALUATION,
        sees_inputs=True,
        sees_targets=True,
        sees_weights=False,
        label="calibrate",
        told="measured with these weights, saved with them",
    ),
    Hook(
        "predict",
        EVALUATION,
        sees_inputs=True,
        sees_targets=True,
        alone=True,
        sees_weights=False,
        label="prediction",
        told="in place of the plain forward pass",
    ),
    Hook(
        "measure",
        EVALUATION,
        sees_inputs=True,
        sees_targets=True,
        sees_weights=False,
        label="metrics",
        told="measured beside loss and accuracy",
    ),
    Hook("metrics", EVALUATION, sees_weights=False, label="metrics", told="measured beside loss and accuracy"),
    Hook("ruler", EVALUATION, sees_weights=False),
    Hook("after_validation", EVALUATION, label="after", told="looks at the metrics"),
    Hook("settle", END, label="weights", told="left in the model at the end"),
    Hook("next_phase", END, sees_weights=False, label="phase", told="may ask for one more fit"),
    Hook("drawing", END, sees_weights=False),
)
BY_NAME = {hook.name: hook for hook in HOOKS}
