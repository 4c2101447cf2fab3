import copy

import torch
from torch import nn

from plugins.pretrained import Pretrained, pretrained_of


def test_is_found_wherever_the_model_was_put():
    model, found = nn.Linear(2, 3), Pretrained(("all taken",), torch.zeros(1), torch.ones(1))
    assert pretrained_of(model) is None
    model.pretrained_weights = found
    whole = nn.Sequential(nn.Flatten(), model)
    assert pretrained_of(whole) is found
    assert pretrained_of(copy.deepcopy(whole)).remarks == ("all taken",)
    assert set(whole.state_dict()) == {"1.weight", "1.bias"}


def test_an_attribute_of_that_name_of_somebody_elses_is_none():
    model = nn.Linear(2, 3)
    model.pretrained_weights = "imagenet"
    assert pretrained_of(model) is None
