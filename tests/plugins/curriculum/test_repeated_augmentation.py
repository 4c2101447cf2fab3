import numpy as np
import pytest
import torch

from plugins.augmentation.alternating_flip import AlternatingFlip
from plugins.augmentation.gaussian_noise import GaussianNoise
from plugins.base import Batch, RecipeError, Refusal, Selection, Setting, Task, check_selection
from plugins.curriculum.repeated_augmentation import RepeatedAugmentation, repeated_order
from plugins.curriculum.self_paced import SelfPaced
from plugins.regularizer.label_smoothing import LabelSmoothing
from recipes.engine.module import RecipeModule
from tests.plugins.curriculum.numbered import Seen, trained

SETTING = Setting((3, 8, 8), (Task("", "classification", 3),))


@pytest.mark.parametrize(("samples", "repeats"), [(48, 2), (50, 3), (7, 20)])
def test_the_order_of_deit_written_out(samples, repeats):
    indices = torch.randperm(samples, generator=torch.Generator().manual_seed(3)).tolist()
    expected = np.repeat(indices, repeats=repeats).tolist()[:samples]
    assert repeated_order(samples, repeats, torch.Generator().manual_seed(3)).tolist() == expected


@pytest.mark.parametrize("parts", [1, 2])
def test_each_step_has_copies_and_there_are_as_many_steps(tmp_path, parts):
    seen = Seen()
    module = trained(tmp_path, 12, RepeatedAugmentation(4), seen, parts=parts)
    assert module.trainer.num_training_batches == 6
    steps = [torch.cat([numbers for numbers, _ in seen.passes[at : at + parts]]) for at in range(0, 12 * parts, parts)]
    for numbers in steps:
        assert numbers.unique(return_counts=True)[1].tolist() == [4, 4]
    first, second = (torch.cat(steps[at : at + 6]).unique() for at in (0, 6))
    assert len(first) == len(second) == 12 and not torch.equal(first, second)


def test_copies_are_augmented_each_in_its_own_way():
    plugin, labels = GaussianNoise(0.1), torch.zeros(6, dtype=torch.long)
    module = RecipeModule(torch.nn.Flatten(), torch.nn.functional.cross_entropy, torch.optim.SGD)
    module.build([plugin, RepeatedAugmentation(6)], SETTING, devices=1)
    x = torch.rand(1, 3, 8, 8).expand(6, -1, -1, -1)
    after = plugin.transform_batch(Batch(x, {"": labels}, {"": labels}), module)
    assert len(after.x.flatten(1).unique(dim=0)) == 6


def test_tells_where_nothing_makes_copies_differ():
    plugin = RepeatedAugmentation()
    check_selection(Selection([plugin], SETTING))
    assert plugin.remarks == ["nothing is augmented: the copies of a sample are alike"]
    check_selection(Selection([plugin, GaussianNoise(0.1)], SETTING))
    assert plugin.remarks == []
    check_selection(Selection([plugin, LabelSmoothing(0.1), SelfPaced()], SETTING))
    assert plugin.remarks == ["nothing is augmented: the copies of a sample are alike"]


def test_refuses_what_treats_copies_alike():
    told = "alternating_flip: it mirrors all copies of a sample alike; type .augmentation=horizontal_flip"
    with pytest.raises(Refusal, match=told):
        check_selection(Selection([RepeatedAugmentation(), AlternatingFlip()], SETTING))
    with pytest.raises(RecipeError, match="^repeats must be a whole number ≥ 1"):
        RepeatedAugmentation(0)


def test_one_copy_is_off_and_no_batch_is_replayed():
    assert RepeatedAugmentation(1).is_off and not RepeatedAugmentation(2).is_off
    assert RepeatedAugmentation(2).repeats == 1  # steps in a row on one batch
