"""What each of two processes does: train with every option; the first one saves what came out."""

import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from plugins.base import RecipeError
from tests.harness import config_of, fit, parameters, weights

WORDS = ("trainer.val_every_n_steps=2",)  # so that what is done at a validation is compared too


def train_all(target: Path, strategy: str, selections: list[str]) -> None:
    """One training for each selection, "group/option,group/option"; weights of both ranks are compared here."""
    found = {}
    for number, selection in enumerate(selections):
        config = config_of(selection.split(","), f"trainer.strategy={strategy}", *WORDS)
        try:
            module = fit(config, target.with_name("runs") / str(number), 4)
            # running statistics are among the weights
            mine = torch.cat([value.flatten() for value in weights(module).values() if value.is_floating_point()])
            other = mine.clone()
            dist.broadcast(other, src=0)
            equal = torch.tensor(float(torch.equal(mine, other)))
            dist.all_reduce(equal)
            found[selection] = {"parameters": parameters(module), "ranks_equal": bool(equal == 2), "metrics": module.metrics}
        except RecipeError as error:
            found[selection] = {"refused": str(error)}
        except Exception:
            traceback.print_exc()
            found[selection] = {"error": traceback.format_exc()[-1500:]}
    if dist.get_rank() == 0:
        torch.save(found, target)
