"""What is kept of a pass."""

import torch
from torch import nn

from plugins.recording import Recording
from plugins.sites import attach


def test_keeps_each_call_while_it_is_open():
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 4), act)
    attach(act, "noise", nn.Dropout(0.5))
    recorded, x = Recording([act]), torch.randn(5, 3)
    model(x)
    assert recorded == {act: []}
    model.eval()
    with recorded.opened():
        model(x)
    first = torch.relu(model[0](x))
    torch.testing.assert_close(recorded[act], [first, torch.relu(model[2](first))])
    model(x)
    assert len(recorded[act]) == 2
    with recorded.opened():
        pass
    assert recorded == {act: []}


def test_keeps_what_the_module_makes_rather_than_what_was_attached_to_it():
    act, x = nn.ReLU(), torch.randn(50)
    attach(act, "dropout", nn.Dropout(0.5))
    recorded = Recording([act])
    with recorded.opened():
        out = act(x)
    assert torch.equal(recorded[act][0], torch.relu(x)) and not torch.equal(out, torch.relu(x))


def test_of_a_tuple_it_keeps_what_comes_first():
    attention, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4)
    recorded = Recording([attention])
    with recorded.opened():
        out, _ = attention(x, x, x)
    assert torch.equal(recorded[attention][0], out)


def test_an_operation_in_place_behind_a_module_changes_nothing_of_what_is_kept():
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 1)), torch.randn(6, 4)
    recorded = Recording([model[0]])
    with recorded.opened():
        model(x)
    assert torch.equal(recorded[model[0]][0], model[0](x)) and (recorded[model[0]][0] < 0).any()
    recorded[model[0]][0].sum().backward()  # its gradient is that of the layer itself
    torch.testing.assert_close(model[0].bias.grad, torch.full((5,), 6.0))


def test_what_is_not_asked_for_costs_nothing():
    """No hook stays behind, unless it is told that a compiled model needs it; then it keeps nothing."""
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3)
    recorded = Recording(list(model))
    for asked in (None, [model[1]], []):
        with recorded.opened(asked):
            out = model(x)
        assert [len(kept) for kept in recorded.values()] == ([1, 1, 1] if asked is None else [0, len(asked), 0])
        assert not any(part._forward_hooks for part in model)
    staying = Recording([model[2]], stays=True)
    model(x)
    assert len(model[2]._forward_hooks) == 1 and staying == {model[2]: []}
    with staying.opened():
        model(x)
    assert torch.equal(staying[model[2]][0], out)
