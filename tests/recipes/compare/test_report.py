import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from recipes.catalogue import Catalogue, UsageError
from recipes.compare.comparison import compare
from recipes.compare.report import average, class_scores, dimension, embedded, heat_map, ranges, shorten, write_report
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from tests.recipes.compare.fabricated import config, leave, leave_group

CATALOGUE = Catalogue()


class Parsed(HTMLParser):
    """What a browser makes of a page: its elements, and the texts in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data

    def all(self, tag):
        return [(attributes, text) for (name, attributes), text in zip(self.elements, self.texts, strict=True) if name == tag]

    @property
    def data(self):
        return json.loads(next(text for attributes, text in self.all("script") if attributes.get("id") == "data"))

    @property
    def sections(self):
        return [attributes["id"] for attributes, _ in self.all("section")]


def report_of(place, **choices):
    comparison = compare([read(folder, CATALOGUE) for folder in find([place])], CATALOGUE, **choices)
    found = rows(comparison)
    write_report(comparison, found, place / "report.html")
    return comparison, found, Parsed((place / "report.html").read_text(encoding="utf-8"))


def test_mean_and_deviation_at_each_step_over_the_curves_that_have_it():
    random = np.random.default_rng()
    curves = []
    for _ in range(4):
        steps = np.sort(random.choice(50, random.integers(5, 40), replace=False))
        values = random.normal(size=len(steps))
        values[random.integers(len(steps))] = math.nan
        curves.append((steps.tolist(), values.tolist()))
    at = {}
    for steps, values in curves:
        for step, value in zip(steps, values, strict=True):
            if value == value:
                at.setdefault(step, []).append(value)
    steps, means, deviations, seeds = average(curves, 1000)
    assert steps == sorted(at)
    np.testing.assert_allclose(means, [np.mean(at[step]) for step in steps])
    np.testing.assert_allclose(deviations, [np.std(at[step], ddof=1) if len(at[step]) > 1 else 0 for step in steps], atol=1e-12)
    assert seeds == [len(at[step]) for step in steps]


def test_long_curves_are_averaged_over_neighbouring_points():
    random = np.random.default_rng()
    length = int(random.integers(301, 5000))
    values = random.normal(size=length)
    steps, means, _, seeds = average([(list(range(length)), values.tolist())], 300)
    width = math.ceil(length / 300)
    assert len(steps) <= 300 and set(seeds) == {1}
    for place in (0, len(steps) // 2, len(steps) - 1):
        part = slice(place * width, (place + 1) * width)
        assert means[place] == pytest.approx(values[part].mean())
        assert steps[place] == pytest.approx(np.arange(length)[part].mean())


def test_a_curve_of_no_numbers_is_none():
    assert average([([1, 2], [math.nan, math.inf])], 300) == ([], [], [], [])
    assert average([], 300) == ([], [], [], [])


def test_recall_precision_and_f1_are_those_of_scikit_learn():
    random = np.random.default_rng()
    counts = random.integers(0, 30, (6, 6))
    true, predicted = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    expected = precision_recall_fscore_support(true, predicted, labels=range(6))
    scores = class_scores(counts.tolist())
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        np.testing.assert_allclose(scores[name], values)


def test_a_class_that_never_occurs_has_no_score():
    scores = class_scores([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert scores["recall"] == [1, 0, None] and scores["precision"] == [0.75, None, None] and scores["F1"][2] is None


def test_histograms_on_common_bins_keep_their_distribution():
    random = np.random.default_rng()
    entries = []
    for step in range(5):
        counts, edges = np.histogram(random.normal(random.normal(), random.uniform(0.1, 3), 1000), 64)
        entries.append((step, float(edges[0]), float(edges[-1]), counts.tolist()))
    steps, middles, shares = heat_map(entries)
    assert steps == [0, 1, 2, 3, 4]
    width = middles[1] - middles[0]
    ends = np.array(middles) + width / 2
    for place, (_, low, high, counts) in enumerate(entries):
        column = np.array([row[place] for row in shares])
        assert column.sum() == pytest.approx(100, abs=0.1)
        below = 100 * np.interp(ends, np.linspace(low, high, 65), np.cumsum([0, *counts]) / 1000)
        np.testing.assert_allclose(column.cumsum(), below, atol=0.1)


def test_histograms_of_one_value():
    _, middles, shares = heat_map([(1, 2.0, 2.0, [7])])
    column = [row[0] for row in shares]
    assert sum(column) == pytest.approx(100) and abs(middles[int(np.argmax(column))] - 2) < 0.05
    assert heat_map([(1, 0.0, 1.0, [0, 0])])[2][0] == [0]


def test_axes_of_hyperparameters():
    few = dimension("optimizer.lr", ["0.1", "0.01", None, "1.0"])
    assert few["ticktext"] == ["none", "0.01", "0.1", "1.0"] and few["values"] == [2, 1, 0, 3]
    words = dimension("model.activation", ["relu", "[1, 2]", "gelu"])
    assert [words["ticktext"][place] for place in words["values"]] == ["relu", "[1, 2]", "gelu"]
    many = [str(value) for value in range(1, 11)]
    assert dimension("x", many)["values"] == list(range(1, 11))
    wide = dimension("x", [str(10.0**-power) for power in range(8)])
    np.testing.assert_allclose(wide["values"], -np.arange(8.0))
    assert wide["ticktext"][0] == "1e-07" and wide["ticktext"][-1] == "1"
    lacking = dimension("x", [*many, None])
    assert lacking["values"][-1] < 1 and lacking["ticktext"][0] == "none"
    assert lacking["tickvals"][0] == pytest.approx(lacking["values"][-1])


def test_data_cannot_end_its_script():
    value = {"</script><!-- ": "\u2028 & ]]> é"}
    text = embedded(value)
    assert not re.search("[<>&\u2028]", text) and json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        embedded(math.nan)


def test_small_texts():
    assert ranges([0, 1, 2, 4, 7, 8]) == "0–2, 4, 7–8"
    assert shorten("a" * 60) == "a" * 28 + "…" + "a" * 15 and shorten("short") == "short"


def test_the_table_has_every_number_of_every_row(tmp_path):
    random = np.random.default_rng()
    for name, words in (("a", ()), ("b", ("+regularizer=dropout",)), ("c", ("+regularizer=l2",))):
        leave_group(tmp_path, name, random.uniform(0.5, 0.9, 4).tolist(), *words, seconds=float(random.uniform(1, 9)))
    _, found, page = report_of(tmp_path)
    order = sorted(found, key=lambda row: -row.mean)
    cells = [attributes["data-value"] for attributes, _ in page.all("td") if "data-value" in attributes]
    width = len(cells) // 3
    for place, row in enumerate(order):
        values = [row.n, row.mean, row.interval[0], row.difference, row.p_corrected, row.seconds, row.memory]
        shown = [float(cell) if cell else None for cell in cells[place * width :][:7]]
        assert shown == pytest.approx(values)
    text = (tmp_path / "report.html").read_text()
    for row in order:
        assert f"<code>{row.label}</code>" in text
    assert [group["label"] for group in page.data["groups"]] == [row.label for row in order]


def test_a_loss_is_best_when_small(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6], metric="test/loss")
    leave_group(tmp_path, "b", [0.3, 0.2], "+regularizer=dropout", metric="test/loss")
    comparison, found, page = report_of(tmp_path)
    assert comparison.metric == "test/loss"
    assert [group["label"] for group in page.data["groups"]] == ["+regularizer=dropout", "nothing added"]
    assert "<b>+regularizer=dropout</b> has the best mean test loss" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.9, 0.91, 0.92, 0.9, 0.93], "more than chance explains"),
        ([0.5, 0.9, 0.6, 0.61, 0.5], "chance may explain"),
        ([0.9], "too few seeds"),
        ([0.1, 0.2, 0.1], "No group is better"),
    ],
)
def test_the_sentence_on_top_says_no_more_than_the_numbers(tmp_path, values, said):
    leave_group(tmp_path, "a", [0.5, 0.52, 0.51, 0.53, 0.5][: max(2, len(values))])
    leave_group(tmp_path, "b", values, "+regularizer=dropout")
    report_of(tmp_path)
    assert said in re.search(r'<p class="lead">(.*?)</p>', (tmp_path / "report.html").read_text())[1]


def test_groups_without_a_number_are_last_and_break_nothing(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6])
    leave_group(tmp_path, "b", [0.7, math.nan], "+regularizer=dropout")
    leave_group(tmp_path, "c", [0.4], "+regularizer=l2", seconds=math.nan, peak_memory=None, epochs=None, steps=None)
    _, _, page = report_of(tmp_path)
    assert [group["label"] for group in page.data["groups"]][-1] == "+regularizer=dropout"


def test_sections_without_data_are_left_out(tmp_path):
    leave(tmp_path / "0")
    _, _, page = report_of(tmp_path)
    assert page.sections == ["table", "seeds", "cost"]
    leave(tmp_path / "1", "+regularizer=dropout", curve={"val/acc": [0.1, 0.2]})
    _, _, page = report_of(tmp_path)
    assert page.sections == ["table", "curves", "seeds", "cost", "parallel", "differences"]
    (tmp_path / "0/confusion.json").write_text('{"test": {"": {"classes": ["a", "b"], "matrix": [[1, 2], [3, 4]]}}}')
    (tmp_path / "0/histograms.csv").write_text("step,name,low,high,counts\n1,gradient_stats/a,0,1,1 2 3\n")
    _, _, page = report_of(tmp_path)
    assert page.sections[-3:] == ["classes", "confusion", "techniques"]


def test_what_techniques_recorded_is_theirs_alone(tmp_path):
    curve = {"val/acc": [0.1, 0.2], "l2/penalty": [1, 2], "mine/x": [1, 2], "test/acc": [0.1, 0.2]}
    for seed in (0, 1):
        leave(tmp_path / str(seed), "+regularizer=l2", seed=seed, curve=curve, techniques=["sgd", "l2"])
    _, _, page = report_of(tmp_path)
    assert [*page.data["figures"]["curves"]] == ["val/acc", "mine/x"]
    assert [(found["name"], [*found["curves"]]) for found in page.data["figures"]["techniques"]] == [("l2", ["l2/penalty"])]


def test_confusion_is_summed_over_seeds_for_each_task_and_other_classes_are_left_out(tmp_path):
    random = np.random.default_rng()
    matrices = random.integers(0, 9, (3, 2, 3, 3))
    for seed in range(3):
        folder = leave(tmp_path / str(seed), seed=seed)
        tasks = {
            task: {"classes": ["a", "b", "c"], "matrix": matrices[seed, place].tolist()} for place, task in enumerate("xy")
        }
        if seed == 2:
            tasks["y"]["classes"] = ["a", "b", "d"]
        (folder / "confusion.json").write_text(json.dumps({"test": tasks}))
    _, _, page = report_of(tmp_path)
    confusion = page.data["figures"]["confusion"]
    np.testing.assert_array_equal(confusion["x"]["counts"]["0"], matrices[:, 0].sum(0))
    np.testing.assert_array_equal(confusion["y"]["counts"]["0"], matrices[:2, 1].sum(0))


def test_names_of_users_stay_text(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{data}}"
    clean = tmp_path / "clean"
    for place, name in ((clean, "harmless"), (tmp_path / "dirty", evil)):
        curve = {"val/acc": [0.1, 0.2], f"{name}/x": [1, 2]}
        leave(place / "0", config=config() | {"name": name}, curve=curve, techniques=[name])
        leave(place / "1", status="failed", error=name)
    before, after = report_of(clean)[2], report_of(tmp_path / "dirty")[2]
    assert [tag for tag, _ in before.elements] == [tag for tag, _ in after.elements]
    assert after.data["groups"][0]["label"] == evil
    assert not any(name.startswith("on") for _, attributes in after.elements for name in attributes)


def test_the_page_names_no_file_and_no_address_to_load(tmp_path):
    leave(tmp_path / "0")
    _, _, page = report_of(tmp_path)
    loaded = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert loaded and all(address.startswith(("#", "data:")) for address in loaded)
    policy = next(attributes["content"] for attributes, _ in page.all("meta") if "http-equiv" in attributes)
    assert "default-src 'none'" in policy and "http" not in policy


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    leave(tmp_path / "0")
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"report\.html cannot be written"):
        report_of(tmp_path)
    tmp_path.chmod(0o700)
