import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run.build import build_data
from recipes.run.tuning.batch import SMALLEST, Measured, find_batch_size, suggested


def test_the_smallest_size_that_is_nearly_as_fast_as_the_fastest():
    speeds = {8: 100.0, 16: 190.0, 32: 361.0, 64: 400.0, 128: 390.0}
    assert suggested([Measured(size, speed, 0) for size, speed in speeds.items()]) == 32


def test_sizes_are_doubled_up_to_all_samples(tmp_path):
    config, data = prepared("+regularizer=dropout", "+stopping=early", "scheduler=plateau")
    size, found = find_batch_size(config, tmp_path / "run", data, 1)
    samples = len(data.splits["train"])
    assert [each.size for each in found] == [SMALLEST * 2**power for power in range(8)] and found[-1].size * 2 > samples
    assert all(each.speed > 0 and each.memory > 1e6 for each in found) and size in [each.size for each in found]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="measures a single process"):
        find_batch_size(config, tmp_path, data, 2)


def test_it_ends_where_memory_does(tmp_path, monkeypatch, caplog):
    from recipes.models.mlp import MLP

    config, data = prepared("scheduler=warmup_cosine")
    forward = MLP.forward

    def small(self, x):
        if len(x) > 64:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return forward(self, x)

    monkeypatch.setattr(MLP, "forward", small)
    _, found = find_batch_size(config, tmp_path, data, 1)
    assert [each.size for each in found] == [8, 16, 32, 64]
    assert "warmup" not in caplog.text  # which is that of the training, not of these


def prepared(*words):
    words = ["logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", *words]
    config = finish(Catalogue(), compose(words), words)
    data = build_data(config)
    data.setup()
    return config, data
