import copy
import io

import pytest
import torch
from torch import nn

from plugins.wrapper.looksam import Looking, LookSAM
from plugins.wrapper.sam import SAM
from tests.plugins.wrapper.two_layers import closure_of, flat, loss_and_gradient, moved, problem_of_two_layers, weights_of

RHO, RATE, ALPHA = 0.3, 0.1, 0.6


def test_is_the_published_algorithm_written_out():
    """Algorithm 1, with norms over all parameters: a look in steps 0, 3 and 6, and (k + 1) / k passes a step."""
    model, x, y = problem_of_two_layers()
    shapes, weights, kept = [w.shape for w in weights_of(model)], flat(weights_of(model)), None
    optimizer = Looking(torch.optim.SGD(model.parameters(), lr=RATE), RHO, 3, ALPHA)
    closure = closure_of(model, optimizer, x, y)

    def gradient(numbers):
        cut = [piece.view(shape) for piece, shape in zip(numbers.split([s.numel() for s in shapes]), shapes, strict=True)]
        return flat(loss_and_gradient(model, cut, x, y)[1])

    for step in range(9):
        g = gradient(weights)
        if step % 3 == 0:
            update = gradient(weights + RHO * g / g.norm())
            cosine = (g @ update) / (g.norm() * update.norm())
            kept = update - update.norm() * cosine * g / g.norm()
        else:
            update = g + ALPHA * g.norm() / kept.norm() * kept
        weights = weights - RATE * update
        optimizer.step(closure)
        torch.testing.assert_close(flat(weights_of(model)), weights)
        assert (optimizer.perturbation_norm is not None) == (step % 3 == 0)
    assert closure.calls == 12


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_equals_pytorch_optimizer_which_takes_norms_of_each_tensor(base):
    oracle_class = pytest.importorskip("pytorch_optimizer").LookSAM
    model, x, y = nn.Linear(5, 3, bias=False).double(), torch.randn(9, 5).double(), torch.randint(3, (9,))
    twin = copy.deepcopy(model)
    ours = Looking(base(model.parameters(), lr=0.05), RHO, 3, ALPHA)
    theirs = oracle_class(twin.parameters(), base, rho=RHO, k=3, alpha=ALPHA, lr=0.05)
    for _ in range(8):
        ours.step(closure_of(model, ours, x, y))
        closure_of(twin, theirs, x, y)()
        theirs.step(closure_of(twin, theirs, x, y))
    torch.testing.assert_close(weights_of(model), weights_of(twin), rtol=1e-6, atol=1e-7)


def test_a_look_in_each_step_is_sam_bit_for_bit(problem, weights, same):
    assert same(weights(problem.fit(LookSAM(k=1, rho=0.1))), weights(problem.fit(SAM(rho=0.1))))


def test_goes_on_where_its_state_says():
    model, x, y = problem_of_two_layers()
    optimizer = Looking(torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9), RHO, 4, ALPHA)
    for _ in range(2):
        optimizer.step(closure_of(model, optimizer, x, y))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin = copy.deepcopy(model)
    other = Looking(torch.optim.SGD(twin.parameters(), lr=RATE, momentum=0.9), RHO, 4, ALPHA)
    other.load_state_dict(saved["optimizer"])
    for _ in range(4):
        optimizer.step(closure_of(model, optimizer, x, y))
        other.step(closure_of(twin, other, x, y))
    assert all(map(torch.equal, weights_of(model), weights_of(twin)))


def test_looks_when_the_time_of_the_other_run_says_and_logs_then(problem, weights, same, tmp_path):
    whole = problem.fit(LookSAM(k=3), steps=16, save=(tmp_path / "last.ckpt", 8))
    assert len(problem.log.series("looksam/sharpness")) == 6
    resumed = problem.fit(LookSAM(k=3), steps=16, resume=tmp_path / "last.ckpt")
    assert same(weights(resumed), weights(whole))
    assert len(problem.log.series("looksam/sharpness")) == 3  # in steps 9, 12 and 15


def test_a_parameter_that_comes_later_has_no_way_yet():
    """Such as a layer that thaws: it takes its gradient until the next look."""
    model, x, y = problem_of_two_layers()
    model[0].requires_grad_(False)
    optimizer = Looking(torch.optim.SGD(model.parameters(), lr=RATE), RHO, 2, ALPHA)
    optimizer.step(closure_of(model, optimizer, x, y))
    model[0].requires_grad_(True)
    start = weights_of(model)
    _, g = loss_and_gradient(model, start, x, y)
    optimizer.step(closure_of(model, optimizer, x, y))
    torch.testing.assert_close(weights_of(model)[:2], moved(start, g, -RATE)[:2])
    assert not torch.allclose(weights_of(model)[2], moved(start, g, -RATE)[2])
    optimizer.step(closure_of(model, optimizer, x, y))
    assert sorted(optimizer.directions) == [0, 1, 2, 3]
