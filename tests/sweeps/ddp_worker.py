"""Started by torchrun on two processes: trains with every option named on the command line and saves what came out."""

import sys
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from plugins.base import RecipeError
from tests.harness import config_of, fit, parameters


def main(target: str, *selections: str) -> None:
    """One training for each selection, "group/option,group/option"; weights of both ranks are compared here."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {}
    for selection in selections:
        try:
            module = fit(config_of(selection.split(",")), Path(tempfile.mkdtemp()), 4)
            weights = [value for value in module.model.state_dict().values() if value.is_floating_point()]
            mine = torch.cat([value.flatten() for value in weights])  # running statistics are among them
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
    if rank == 0:
        torch.save(found, target)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
