"""What a metric was measured with is recorded beside it, and groups in which that differs are not compared by it."""

import json

import pytest
import torch

from plugins.adversarial.pgd import PGD
from plugins.base import Plugin
from plugins.errors import RecipeError
from recipes.compare.comparison import compare
from recipes.compare.report import write_report
from recipes.compare.rulers import Alike
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.compare.table import arrange
from recipes.config.catalogue import Catalogue
from tests.recipes.compare.fabricated import config, leave

FIRST, SECOND = [0.81, 0.80, 0.79, 0.82, 0.83], [0.61, 0.58, 0.60, 0.63, 0.62]


def leave_both(place, metric, words, rulers):
    for name, values, own, ruler in zip("ab", (FIRST, SECOND), words, rulers, strict=True):
        for seed, value in enumerate(values):
            metrics = {metric: value, "test/acc": value}
            leave(place / f"{name}{seed}", *own, seed=seed, metrics=metrics, rulers=ruler)
    return compare([read(folder, Catalogue()) for folder in find([place])], Catalogue(), metric, mode="max")


def attack(eps, *further, **changes):
    words = ("+adversarial=pgd", f"adversarial.eps={eps}", *further)
    return words, {"acc_pgd": {**PGD(eps=eps).ruler("acc_pgd"), **changes}}


@pytest.mark.parametrize(
    ("metric", "first", "second", "said"),
    [
        ("test/acc_pgd", attack(0.0), attack(0.1), "adversarial.eval_eps 0, 0.1"),
        ("val/acc_pgd", attack(0.1), attack(0.2), "adversarial.eval_eps 0.1, 0.2"),
        ("test/acc_pgd", attack(0.1, "adversarial.norm=l2", norm="l2"), attack(0.1), "adversarial.norm l2, linf"),
        (
            "test/acc_pgd",
            attack(0.1, "adversarial.range=[0,1]", range=[0.0, 1.0]),
            attack(0.1),
            "adversarial.range [0, 1], null",
        ),
        ("test/acc_pgd", attack(0.1, "max_epochs=3", eval_steps=20), attack(0.1), "eval_steps 20, 10"),
        (
            "test/entropy",
            (("+inference=mc_dropout", "+regularizer=dropout"), {"entropy": {"samples": 20}}),
            (("+inference=mc_dropout", "+regularizer=dropout", "inference.samples=5"), {"entropy": {"samples": 5}}),
            "inference.samples 20, 5",
        ),
        (
            "gap/acc",
            (("+diagnostics=generalization_gap",), {"gap/acc": {"mode": "evaluation"}}),
            ((), {}),
            "mode evaluation, none",
        ),
        (
            "test/a/mine",
            (("+regularizer=l2",), {"a/mine": {"size": 1}}),
            ((), {"mine": {}, "a/mine": {"size": 2}}),
            "size 1, 2",
        ),
        ("test/mine", (("+regularizer=l2",), {"mine": {"size": 1}}), ((), {}), "size 1, none"),
    ],
)
def test_groups_that_are_not_measured_alike_are_told_and_not_tested(tmp_path, metric, first, second, said):
    comparison = leave_both(tmp_path, metric, *zip(first, second, strict=True))
    (note,) = [note for note in comparison.notes if "not measured alike" in note]
    assert said in note and "\n" not in note
    table = rows(comparison)
    assert len(table) == 2 and all(row.n == 5 and row.interval for row in table)  # they are listed
    assert all(row.difference is None and row.p is None and row.p_corrected is None for row in table)
    assert all(row.difference_interval is None for row in table)
    assert not any("no number for every seed" in note or "no seed or fold in common" in note for note in comparison.notes)
    write_report(comparison, arrange(table, bool(comparison.larger)), tmp_path / "report.html")
    assert "was measured in different ways" in (tmp_path / "report.html").read_text()
    other = compare(comparison.runs, Catalogue(), "test/acc")  # another metric of the same runs
    assert any(row.p is not None for row in rows(other)) and not any("not measured alike" in note for note in other.notes)


def test_one_ruler_for_all_compares_what_was_trained_differently(tmp_path):
    words, rulers = zip(attack(0.0, eval_eps=0.1), attack(0.2, eval_eps=0.1), strict=True)
    comparison = leave_both(tmp_path, "test/acc_pgd", words, rulers)
    assert any(row.p is not None for row in rows(comparison)) and not any("alike" in note for note in comparison.notes)


def test_losses_of_other_kinds_are_not_tested(tmp_path):
    comparison = leave_both(tmp_path, "test/loss", ((), ("loss=mse",)), (None, None))  # as older runs leave them
    assert all(row.p is None and row.difference is None for row in rows(comparison))
    assert any("different loss functions" in note for note in comparison.notes)


def test_a_search_over_how_it_is_measured_is_refused():
    def result(eps, score=0.5, monitor="val/acc_pgd"):
        words, rulers = attack(eps)
        return {"config": config(*words), "monitor": monitor, "metrics": {monitor: score}, "rulers": rulers}

    def expect_alike(results, names=()):
        alike = Alike(names)
        for each in results:
            alike.expect(each)

    expect_alike([result(0.1), result(0.1), result(0.2, None), {}])
    with pytest.raises(RecipeError, match=r"val/acc_pgd with adversarial.eval_eps 0.1, 0.2, which do not compare"):
        expect_alike([result(0.1), result(0.2)])
    with pytest.raises(RecipeError, match="judged by val/acc_pgd and by val/acc, which do not compare"):
        expect_alike([result(0.1), result(0.0, monitor="val/acc")])
    # with objectives it is these that count, and not what chooses each job's best model
    others = [result(eps, monitor="val/acc_pgd") | {"monitor": name} for eps, name in ((0.1, "val/acc"), (0.2, "val/loss"))]
    expect_alike(others, ["steps"])
    expect_alike([others[0], others[0] | {"monitor": "val/loss"}], ["val/acc_pgd", "steps"])
    with pytest.raises(RecipeError, match=r"val/acc_pgd with adversarial.eval_eps 0.1, 0.2, which do not compare"):
        expect_alike(others, ["steps", "val/acc_pgd"])


def test_groups_that_predict_differently_are_told(tmp_path):
    words = [("+inference=mc_dropout", "+regularizer=dropout", f"inference.samples={samples}") for samples in (5, 20)]
    comparison = leave_both(tmp_path, "test/acc", words, ({}, {}))
    assert any("predict in different ways (inference.samples)" in note for note in comparison.notes)
    assert any(row.p is not None for row in rows(comparison))  # accuracy is accuracy


class Measuring(Plugin):
    """A technique of one's own, with parameters of all kinds."""

    def __init__(self, size, bins, kind, table, hidden=3):
        self.size, self.bins, self.kind, self.table = size, bins, kind, table


def test_by_default_a_ruler_has_all_parameters_as_plain_values():
    ruler = Measuring(2, (1, 2), torch.nn.ReLU(), {"a": torch.ones(2)}).ruler("mine")
    assert json.loads(json.dumps(ruler)) == {"size": 2, "bins": [1, 2], "kind": "ReLU", "table": {"a": "Tensor"}}


def test_what_is_no_ruler_is_refused(tmp_path):
    leave(tmp_path / "a", rulers={"acc_pgd": 3})
    run = read(tmp_path / "a", Catalogue())
    assert run.status == "broken" and "rulers must be mappings" in run.error


@pytest.mark.parametrize("metric", ["val/acc", "val/loss"])
def test_samples_that_were_trained_on_are_told_and_not_compared(tmp_path, metric):
    seen = {"val/acc": {"trained_on_validation": True}, "val/loss": {"trained_on_validation": True}}
    comparison = leave_both(tmp_path, metric, ((), ("+stopping=early_retrain",)), ({"loss": {}}, {"loss": {}, **seen}))
    told = f"{metric} is of samples that the last phase has trained on, and flatters; take --metric {metric.replace('val', 'test')}"
    assert [note for note in comparison.notes if told in note] == [f"+stopping=early_retrain: {told}"]
    assert all(row.difference is None for row in rows(comparison))
