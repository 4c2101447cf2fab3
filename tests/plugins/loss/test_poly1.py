import pytest
import torch
from torch.nn import functional

from plugins.base import RecipeError, Task
from plugins.loss.poly1 import Poly1


@pytest.mark.parametrize("places", [(), (3, 2)])
@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1.0, 4.0])
def test_classes_are_cross_entropy_with_another_first_term(epsilon, places):
    z, labels = 3 * torch.randn(20, 5, *places), torch.randint(5, (20, *places))
    p = z.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    expected = functional.cross_entropy(z, labels, reduction="none") + epsilon * (1 - p)
    torch.testing.assert_close(Poly1(epsilon)(z, labels), expected)


def test_it_is_the_series_of_the_paper():
    z, labels = torch.randn(50, 3), torch.randint(3, (50,))
    doubt = 1 - z.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1).double()
    series = sum((1 / k + (2.0 if k == 1 else 0.0)) * doubt**k for k in range(1, 4000))
    torch.testing.assert_close(Poly1(2.0)(z, labels).double(), series, rtol=1e-4, atol=1e-4)


def test_several_labels_and_shares():
    z, labels = torch.randn(20, 4), torch.rand(20, 4) < 0.5
    right = torch.where(labels, z.sigmoid(), 1 - z.sigmoid())
    expected = (-right.log() + 1.5 * (1 - right)).mean(1)
    torch.testing.assert_close(Poly1(1.5).for_task(Task("", "multilabel", 4))(z, labels), expected)
    shares = torch.randn(20, 4).softmax(1)
    of_label = torch.stack([Poly1(1.5)(z, torch.full((20,), label)) for label in range(4)], 1)
    torch.testing.assert_close(Poly1(1.5)(z, shares), (shares * of_label).sum(1))


def test_refuses():
    with pytest.raises(RecipeError, match="loss=poly1 is for labels"):
        Poly1().for_task(Task("", "regression", 1))
    with pytest.raises(RecipeError, match="epsilon must be a number ≥ -1, got -2"):
        Poly1(-2.0)
