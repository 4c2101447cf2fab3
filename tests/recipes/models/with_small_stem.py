"""What holds for every residual network of torchvision with a stem for small images."""

import pytest
import torch
import torchvision

from plugins.base import RecipeError


class WithSmallStem:
    """A base of tests: `model` is the class, `name` that of torchvision's network and of the option."""

    model: type
    name: str

    def test_is_torchvisions_with_a_small_stem(self):
        model = self.model((2, 8, 8), 7).eval()
        theirs = torchvision.models.get_model(self.name, num_classes=7).eval()
        ours, shapes = model.state_dict(), {name: value.shape for name, value in theirs.state_dict().items()}
        assert {name for name, value in ours.items() if value.shape != shapes[name]} == {"conv1.weight"}
        assert ours["conv1.weight"].shape == (64, 2, 3, 3) and ours.keys() == shapes.keys()
        theirs.conv1 = torch.nn.Conv2d(2, 64, 3, stride=1, padding=1, bias=False)
        theirs.maxpool = torch.nn.Identity()
        theirs.load_state_dict(ours)
        x = torch.rand(3, 2, 8, 8)
        assert torch.equal(model(x), theirs(x))

    def test_takes_images_alone(self):
        with pytest.raises(RecipeError, match=f"data for model={self.name} must be images"):
            self.model((12,), 2)
