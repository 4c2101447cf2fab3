"""How often a training has its model compiled anew."""

from functools import partial

import lightning as L
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader, TensorDataset

from recipes.engine.module import RecipeModule


class Count(L.Callback):
    """The number of graphs after each step."""

    def __init__(self):
        self.graphs = []

    def on_train_batch_end(self, *arguments):
        self.graphs.append(counters["stats"]["unique_graphs"])


def compile_and_fit(model, *plugins, steps=8, shape=(1, 8, 8), backend="aot_eager"):
    """A training of a compiled model: the module, and the number of graphs after each step."""
    torch.compiler.reset()
    counters.clear()
    count = Count()
    model = torch.compile(model, backend=backend) if backend else model
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.01))
    loader = DataLoader(TensorDataset(torch.rand(8 * steps, *shape), torch.randint(3, (8 * steps,))), batch_size=8)
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    L.Trainer(max_steps=steps, accelerator="cpu", callbacks=[*plugins, count], **quiet).fit(module, loader)
    return module, count.graphs
