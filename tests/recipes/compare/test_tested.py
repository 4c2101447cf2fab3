"""What tests have counted, as reports show it: summed over seeds, with scikit-learn's scores, and small on the page."""

import json

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from recipes.compare.class_plots import class_results, confusion_matrices, scored, support
from recipes.compare.groups import Group
from recipes.compare.runs import Run
from recipes.compare.summaries import F1, IOU, PRECISION, RECALL, class_scores, summed_confusion
from recipes.compare.tested import label_scores, numbers, reliabilities, summed_tested, with_room
from recipes.store.tested import write_tested
from tests.recipes.compare.fabricated import config, leave, leave_group
from tests.recipes.compare.test_report import report_of

RANDOM = np.random.default_rng()


def table():
    return RANDOM.integers(0, 9, (6, 6)).tolist()


def regression(low=0.0, width=2.0, below=3):
    column = {"range": [low, 10.0], "residual": width, "predicted_true": table(), "residual_predicted": table()}
    return {"kind": "regression", "levels": [0.5], "columns": [{**column, "below": [below]}]}


def classes(places=()):
    samples = RANDOM.integers(0, 50, 15)
    sums = (samples * (np.arange(15) + 0.5) / 15).tolist()
    right = RANDOM.integers(0, samples + 1).tolist()
    return {
        "kind": "classification",
        "places": list(places),
        "reliability": {"samples": samples.tolist(), "right": right, "sums": sums},
    }


def labels(names=("a", "b")):
    counts = RANDOM.integers(0, 30, (len(names), 4)).tolist()
    return {
        "kind": "multilabel",
        "labels": list(names),
        "counts": counts,
        "threshold": 0.5,
        **{"reliability": classes()["reliability"]},
    }


def groups_of(place, *groups):
    """Groups of runs that have counted this."""
    found = []
    for number, runs in enumerate(groups):
        group = []
        for seed, tasks in enumerate(runs):
            write_tested(folder := leave(place / f"{number}-{seed}", seed=seed), tasks)
            group.append(Run(folder, "finished"))
        found.append(Group(group))
    return found


def test_counts_are_summed_over_the_runs_that_are_alike(tmp_path):
    first, second, other = regression(), regression(), regression(low=-1.0)
    wide = regression(width=4.0)
    one, two = groups_of(tmp_path, [{"y": first}, {"y": second}, {"y": other}], [{"y": first}, {"y": wide}])
    found = summed_tested([one, two])["y"]
    (column,), (mixed,) = found[0]["columns"], found[1]["columns"]
    for name in ("predicted_true", "residual_predicted"):
        expected = np.array(first["columns"][0][name]) + np.array(second["columns"][0][name])
        np.testing.assert_array_equal(column[name], expected)
    assert column["below"] == [6] and column["runs"] == [2, 2]
    assert mixed["residual_predicted"] == wide["columns"][0]["residual_predicted"]  # of the widest scale alone
    assert (mixed["residual"], mixed["runs"]) == (4.0, [2, 1])


def test_reliability_and_its_error(tmp_path):
    seeds = [classes(), classes()]
    groups = groups_of(tmp_path, [{"": each} for each in seeds])
    ((found),) = reliabilities(summed_tested(groups))[""].values()
    samples, right, sums = (sum(np.array(each["reliability"][name]) for each in seeds) for name in ("samples", "right", "sums"))
    kept = samples > 0
    np.testing.assert_allclose(found["x"], 100 * (sums[kept] / samples[kept]), rtol=1e-4)
    np.testing.assert_allclose(found["y"], 100 * (right[kept] / samples[kept]), rtol=1e-4)
    assert found["n"] == samples[kept].tolist()
    assert found["error"] == pytest.approx(100 * np.abs(right - sums).sum() / samples.sum(), rel=1e-4)


def test_scores_are_those_of_scikit_learn(tmp_path):
    matrix = RANDOM.integers(1, 30, (5, 5))
    true, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    found = class_scores(matrix.tolist())
    expected = precision_recall_fscore_support(true, predicted)
    for name, values in zip((PRECISION, RECALL, F1), expected, strict=False):
        np.testing.assert_allclose(found[name], values)
    np.testing.assert_allclose(found[IOU], jaccard_score(true, predicted, average=None))
    counts = RANDOM.integers(1, 30, (4, 4))
    found = label_scores(counts.tolist())
    for place, cells in enumerate(counts):
        there, decided = (np.repeat(values, cells) for values in ([0, 0, 1, 1], [0, 1, 0, 1]))
        expected = precision_recall_fscore_support(there, decided, average="binary")
        assert [found[name][place] for name in (PRECISION, RECALL, F1)] == pytest.approx(expected[:3])


def test_class_maps_have_the_intersection_over_union_and_labels_a_table(tmp_path):
    (group,) = groups_of(tmp_path, [{"map": classes((8, 8)), "one": classes(), "several": labels()}])
    matrix = {"classes": ["x", "y"], "matrix": [[3, 1], [2, 4]]}
    (group.runs[0].folder / "confusion.json").write_text(json.dumps({"test": {"map": matrix, "one": matrix}}))
    tested = summed_tested([group])
    found = scored(summed_confusion([group]), tested, 0)
    figures = class_results(found)
    assert [*figures["map"]] == [RECALL, PRECISION, F1, IOU] and [*figures["one"]] == [*figures["several"]] == [
        RECALL,
        PRECISION,
        F1,
    ]
    assert figures["map"][IOU]["data"][0]["z"] == [[50.0, pytest.approx(100 * 4 / 7, rel=1e-4)]]
    counts = tested["several"][0]["counts"]
    shown = support(found)
    assert shown["several"]["named"] == "label" and shown["map"]["counts"]["0"] == [4, 6]
    assert shown["several"]["counts"]["0"] == [row[2] + row[3] for row in counts]


def test_there_is_room_for_the_baseline_and_the_best(tmp_path):
    assert with_room(range(10), 10, 7, 45) == [0, 1, 2, 7] and with_room(range(3), 10**9, 2) == [0, 2]
    groups = groups_of(tmp_path, *[[{"y": regression()}]] * 3)
    tested = summed_tested(groups)
    for place in range(3, 10_000):
        tested["y"][place] = tested["y"][0]
    found = numbers(tested, 9_999)["y"]
    assert 0 < len(found["tables"]) < 5_000 and "9999" in found["tables"] and len(found["below"]) == 10_000
    total = sum(map(sum, tested["y"][0]["columns"][0]["predicted_true"]))
    assert found["below"]["0"] == [[pytest.approx(100 * 3 / total, rel=1e-4)]]
    matrices = {"": {"classes": ["a"] * 1000, "counts": dict.fromkeys(range(500), [[0] * 1000] * 1000)}}
    assert [*confusion_matrices(matrices, 499)[""]["counts"]] == ["0", "499"]


def test_quantiles_without_the_median_have_no_tables(tmp_path):
    def entry(below):
        return {
            "y": {"kind": "regression", "levels": [0.1, 0.9], "columns": [{"range": [0.0, 1.0], "samples": 40, "below": below}]}
        }

    found = numbers(summed_tested(groups_of(tmp_path, [entry([2, 30]), entry([6, 34])], [entry([4, 40])])), 0)["y"]
    assert found["below"] == {"0": [[10, 80]], "1": [[10, 100]]} and found["tables"] == {}


@pytest.mark.slow
def test_the_page_of_500_runs_stays_small(tmp_path):
    task = regression()
    task["columns"][0] |= {name: [[7] * 42] * 42 for name in ("predicted_true", "residual_predicted")}
    for number in range(500):
        whole = config()
        whole["optimizer"]["lr"] = (number + 1) / 1000
        folder = leave(tmp_path / str(number), metrics={"test/loss": number / 1000}, config=whole)
        write_tested(folder, {"": task, "label": labels(), "class": classes()})
    _, _, page = report_of(tmp_path)
    assert page.sections[-3:] == ["classes", "reliability", "numbers"]
    assert (tmp_path / "report.html").stat().st_size < 8e6  # of which 4.8 are plotly


def test_names_in_what_was_counted_stay_text(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>%{x}"
    pages = []
    for number, name in enumerate((evil, "plain")):
        write_tested(
            leave(tmp_path / f"{number}/run"), {name: labels((name, "b")), f"{name} y": regression(), f"{name} z": classes()}
        )
        pages.append(report_of(tmp_path / str(number))[2])
    assert [tag for tag, _ in pages[0].elements] == [tag for tag, _ in pages[1].elements]
    assert pages[0].data["figures"]["support"][evil]["classes"][0] == "</script><img src=x onerror=alert(1)>%{x}"[:48]


def test_the_page_of_one_run_tells_its_results_and_settings(tmp_path):
    curve = {"train/loss": [3.0, 2.0], "val/loss": [2.5, 2.25], "val/f1": [0.1, 0.2], "lr": [0.1, 0.2]}
    metrics = {"train/loss": 2.0, "val/loss": 2.25, "test/loss": 2.5, "test/acc": 0.75}
    leave(tmp_path / "run", "+regularizer=dropout", metrics=metrics, curve=curve, best_step=10, choices={"model": ["mlp"]})
    comparison, _, page = report_of(tmp_path)
    assert page.sections == ["results", "curves", "settings"]
    curves = page.data["figures"]["curves"]
    assert [*curves] == ["loss", "f1", "lr"]
    training, validation = curves["loss"]["data"]
    assert (training["y"], validation["y"]) == (curve["train/loss"], curve["val/loss"])
    names = [page.data["groups"][trace["meta"]["group"]]["label"] for trace in (training, validation)]
    assert names == ["training", "validation"] and curves["lr"]["layout"]["shapes"][0]["x0"] == 10
    cells = [text for _, text in page.all("td")]
    assert cells[:6] == ["2.0000", "2.2500", "2.5000", "–", "–", "75.00 %"] and "mlp" in cells
    marked = [text for attributes, text in page.all("td") if attributes.get("class") == "changed"]
    assert len(comparison.runs) == 1 and len(marked) == 1  # the group that was typed


def test_the_page_of_a_run_tells_its_phases(tmp_path):
    """Both, with the line where the second begins; what is measured on validation samples says that they were trained on."""
    first = {"name": "first", "begins": 0, "steps": 10, "epochs": 1.0, "seconds": 6.0, "samples_per_step": 8, "best_step": 10}
    first |= {"metrics": {"val/acc": 0.5}, "stopped_early": True, "trained_on_validation": False, "until": {}}
    second = {**first, "name": "continue", "begins": 10, "seconds": 4.0, "best_step": 20, "stopped_early": False}
    second |= {"trained_on_validation": True, "until": {"val/loss": 0.25}}
    curve = {"val/loss": [2.5, 2.25]}
    leave(tmp_path / "run", curve=curve, phases=2, phase_begins=[0, 10], phase_results=[first, second], best_step=20)
    _, _, page = report_of(tmp_path)
    lines = [(line["x0"], line["line"]["dash"]) for line in page.data["figures"]["curves"]["loss"]["layout"]["shapes"]]
    assert lines == [(10, "solid"), (20, "dot")]
    facts = " ".join(text for _, text in page.all("dd"))
    assert "phase 1  first: 10 steps in 6.0 s, stopped early, best step 10, val/acc 0.5000" in facts
    assert "phase 2  continue: 10 steps in 4.0 s, until val/loss < 0.25, on training and validation samples" in facts
    assert "validation, trained on" in [text for _, text in page.all("th")]


def test_one_group_of_several_seeds_keeps_its_intervals(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6, 0.7])
    assert report_of(tmp_path)[2].sections == ["table", "seeds", "cost"]
