"""An augmentation in a module, for samples of the first shape that it takes."""

import torch

from plugins.base import RecipeError, Setting, Task
from recipes.engine.module import RecipeModule


def built(kind, shapes, samples, classes):
    """The module, and the training inputs that it has seen."""
    for shape in shapes:
        module = RecipeModule(torch.nn.Flatten(), torch.nn.functional.cross_entropy, torch.optim.SGD)
        inputs = torch.rand(samples, *shape)
        setting = Setting(shape, (Task("", "classification", classes),), 0, lambda inputs=inputs: iter([inputs]))
        try:
            module.build([kind()], setting, devices=1)
        except RecipeError:
            continue
        return module, inputs
    raise AssertionError(f"{kind.__name__} takes none of the shapes {shapes}")
