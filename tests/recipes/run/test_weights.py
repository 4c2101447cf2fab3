"""What a technique gets to start from: tensors by name, of the kinds that runs save."""

import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from recipes.run.weights import load_weights


def test_tensors_by_name(tmp_path):
    kept = nn.Linear(3, 2).state_dict()
    torch.save({"state_dict": kept, "epoch": 3}, tmp_path / "weights.pth")
    found = load_weights(tmp_path / "weights.pth")
    assert found.keys() == kept.keys() and all(torch.equal(found[name], value) for name, value in kept.items())


@pytest.mark.parametrize("other", [[1, 2], {"a": 3}, {}, {"a": torch.ones(2).to_sparse()}, {"a": torch.ones(2, device="meta")}])
def test_what_is_no_weights_is_one_line(other, tmp_path):
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(RecipeError, match="^init.folder=.*(holds no weights|cannot be started from)") as told:
        load_weights(tmp_path / "other.pt")
    assert "\n" not in str(told.value)
