"""Samples that are looked at together in an evaluation change no result; what does not fit is halved, and told."""

import logging

import numpy as np
import pytest
import torch

from recipes.data.loaders import EvaluationLoader, batch_size_of
from recipes.data.split import Split
from recipes.engine.metrics import Means
from recipes.engine.portions import Portions, portion
from tests.harness import digits, fit, merged_config


def seen(portions, samples, room, error=torch.OutOfMemoryError):
    """The portions that are looked at, where the memory holds `room` samples."""
    tried = []

    def look(start, stop):
        tried.append((start, stop))
        if stop - start > room:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return range(start, stop)

    return list(portions.of(samples, look)), tried


def test_what_does_not_fit_is_halved_and_told(caplog):
    portions = Portions()
    with caplog.at_level(logging.WARNING, "recipes"):
        found, tried = seen(portions, 21, 6)
    assert tried == [(0, 21), (0, 11), (0, 6), (6, 12), (12, 18), (18, 21)]
    assert [place for part in found for place in part] == list(range(21))
    (told,) = caplog.records  # not what does not fit either
    assert told.getMessage().endswith(
        "6 samples at a time from here on: the memory does not hold more (data.eval_batch_size=6)"
    )
    assert seen(portions, 21, 6)[1] == [(0, 6), (6, 12), (12, 18), (18, 21)]  # it is remembered
    assert seen(Portions(), 21, 21)[1] == [(0, 21)] and seen(Portions(), 0, 0)[1] == [(0, 0)]


@pytest.mark.parametrize(("room", "error"), [(0, torch.OutOfMemoryError), (6, ZeroDivisionError)])
def test_what_no_half_helps_is_raised(room, error):
    with pytest.raises(error):
        seen(Portions(), 8, room, error)


def test_means_of_portions_are_those_of_all():
    values = torch.rand(3, 7, dtype=torch.float64)
    whole, parts = Means(), Means()
    for row in values:
        whole.add("a", row.mean(), len(row))
        whole.add("b", row.sum(), len(row), summed=True, part="x")
        part = Means()
        part.add("a", row.mean(), len(row))
        part.add("b", row.sum(), len(row), summed=True, part="x")
        parts.add_all(part)
    assert parts.compute() == whole.compute() == pytest.approx({"a": float(values.mean()), "b": float(values.mean())})


def test_the_size_of_a_batch_is_bounded_by_its_bytes():
    for shape, size in (((8,), 500), ((3, 224, 224), 64 * 2**20 // (4 * 3 * 224 * 224)), ((3, 5000, 5000), 1)):
        split = Split(torch.zeros(1, dtype=torch.uint8).expand(2, *shape), {"": torch.zeros(2, dtype=torch.long)})
        assert batch_size_of(split) == EvaluationLoader(split).batch_size == size
    assert EvaluationLoader(split, 7).batch_size == 7


ATTACKED = ("adversarial/fgsm", "metric/f1")
SAMPLED = (*ATTACKED, "inference/mc_dropout", "regularizer/dropout")  # which passes blocks of samples, whatever a batch is


@pytest.mark.parametrize(("techniques", "other"), [(SAMPLED, (7, 500)), (ATTACKED, (500, 40))], ids=["sizes", "halves"])
def test_no_metric_depends_on_it(tmp_path, monkeypatch, techniques, other):
    """Attacks and masks of evaluations are drawn for each sample; the first portions that are tried do not fit."""
    found = []
    for size, room in ((500, 500), other):
        real = torch.nn.Module.__call__

        def call(self, *given, room=room, real=real, **named):
            samples = len(given[0]) if given and isinstance(given[0], torch.Tensor) and given[0].ndim else 0
            if not self.training and not torch.is_grad_enabled() and samples > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
            return real(self, *given, **named)

        monkeypatch.setattr(torch.nn.Module, "__call__", call)
        config = merged_config(techniques, {"data.eval_batch_size": size})
        module = fit(config, tmp_path / f"{size} {room}", 3)
        module.trainer.test(module, EvaluationLoader(digits().splits["test"], size), verbose=False)
        assert (module.evaluation.portions.most or 500) <= room
        found.append({name: value for name, value in module.metrics.items() if name.startswith("test/")})
        monkeypatch.undo()
    first, second = found
    assert second.keys() == first.keys() and len(first) >= 5
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), name
    assert np.isfinite(first["test/loss"])


def test_a_portion_has_all_of_its_samples():
    from plugins.base import Batch

    x, labels = torch.rand(6, 2), {"": torch.arange(6)}
    batch = Batch({"a": x, "b": x > 0.5}, dict(labels), labels, positions=range(10, 16), weight={"": torch.rand(6)})
    part = portion(batch, 2, 5)
    assert torch.equal(part.x["a"], x[2:5]) and part.labels[""].tolist() == [2, 3, 4] and part.positions == range(12, 15)
    assert torch.equal(part.weight[""], batch.weight[""][2:5]) and portion(batch, 0, 6) is batch
