"""Places in a model, and passes that leave no trace."""

import torch
from torch import nn

from plugins.sites import kept_buffers


class Changing(nn.Module):
    """A model whose pass writes into a buffer, replaces one, fills one that was None, and makes one."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("late", None)

    def forward(self, x):
        self.replaced = torch.ones(4)
        self.late = torch.ones(1)
        self.register_buffer("new", torch.ones(1))
        return self.norm(x)


def test_a_pass_leaves_no_trace_in_buffers():
    model = Changing()
    before, replaced = {name: value.clone() for name, value in model.named_buffers()}, model.replaced
    with kept_buffers(model):
        model(torch.randn(4, 3))
        assert model.late is not None and model.norm.running_mean.any()
    after = dict(model.named_buffers())
    assert after.keys() == before.keys() and all(torch.equal(value, before[name]) for name, value in after.items())
    assert model.replaced is replaced and model.late is None
