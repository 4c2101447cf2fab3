import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from recipes.compare.comparison import compare
from recipes.compare.report import write_report
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.run.train import train
from recipes.store.tested import write_tested
from tests.browser.browser import Report, path_of_browser, started
from tests.command import ROOT
from tests.recipes.compare.fabricated import config, leave
from tests.recipes.compare.test_comparison import search
from tests.recipes.compare.test_tested import regression

pytestmark = pytest.mark.slow
CATALOGUE = Catalogue()
NOTHING = "+diagnostics=gradient_stats"  # in all real runs
DROPOUT, MIXUP = f"{NOTHING} +regularizer=dropout", f"{NOTHING} +augmentation=mixup"
EVIL = "</script><script>window.hacked=1;alert(1)</script><img src=x onerror='window.hacked=1'> <b>%{x}</b> & \"'"


def report_of(places, path, **choices):
    """Comparison, rows and report of the runs below some folders."""
    comparison = compare([read(folder, CATALOGUE) for folder in find(places)], CATALOGUE, **choices)
    found = rows(comparison)
    write_report(comparison, found, path)
    return comparison, found


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


@pytest.fixture
def open_report(browser):
    """Opens a report; at the end nothing may have gone wrong in any."""
    contexts, reports = [], []

    def start(path, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **settings})
        contexts.append(context)
        reports.append(Report(context.new_page(), path))
        return reports[-1]

    yield start
    for report in reports:
        report.check()
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Real runs: three groups of two seeds each, and one that failed."""
    place = tmp_path_factory.mktemp("real")
    small = [
        "model=mlp",
        "model.hidden=[16]",
        "max_epochs=2",
        "logger=csv",
        "trainer.progress=false",
        "trainer.accelerator=cpu",
    ]
    small += ["trainer.log_every_n_steps=10", "+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=20"]
    for number, words in enumerate(([], ["+regularizer=dropout"], ["+augmentation=mixup"])):
        for seed in (0, 1):
            folder, chosen = place / f"{number}{seed}", [*small, *words, f"seed={seed}"]
            folder.mkdir()
            train(finish(CATALOGUE, compose(chosen), chosen), folder, chosen)
    leave(place / "failed", status="failed", error="RecipeError: the loss is not a number")
    path = place / "report.html"
    return (*report_of([place], path), path)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """200 runs: 40 groups of five seeds."""
    place = tmp_path_factory.mktemp("many")
    random = np.random.default_rng()
    for group in range(40):
        words = ("+regularizer=dropout",) if group % 2 else ()
        for seed in range(5):
            whole = config(*words, seed=seed)
            whole["optimizer"]["lr"] = 10 ** -(1 + group / 20)
            whole["optimizer"]["weight_decay"] = (group % 3) / 1000
            ends = 0.6 + 0.005 * group + random.normal(0, 0.01)
            curve = [ends * (1 - math.exp(-epoch / 300)) for epoch in range(2000)]
            metrics = {"test/acc": ends, "test/loss": 1 - ends}
            curves = (
                {"val/acc": curve, "step/loss": curve, "gradient_stats/norm": curve} if seed < 2 else {"val/acc": curve[:50]}
            )
            folder = leave(place / f"{group}-{seed}", *words, seed=seed, metrics=metrics, curve=curves, config=whole)
            counts = random.integers(0, 50, (10, 10)).tolist()
            (folder / "confusion.json").write_text(
                json.dumps({"test": {"": {"classes": [*map(str, range(10))], "matrix": counts}}})
            )
    path = place / "report.html"
    return (*report_of([place], path), path)


def test_everything_of_real_runs_is_drawn_without_errors_or_network(real, open_report):
    report = open_report(real[2])
    drawn = {name: report.plot(name) for name in report.plots()}
    assert {"curves", "cost", "forest", "parallel", "classes", "confusion"} <= drawn.keys()
    assert {"technique-gradient_stats", "histogram-gradient_stats"} <= drawn.keys()
    assert all(isinstance(traces, list) and traces for traces in drawn.values())
    picture = report.page.locator("[data-technique=mixup] img")
    assert (
        picture.evaluate("image => image.complete && image.naturalWidth")
        == Image.open(real[2].parent / "20/pictures/mixup.png").width
    )
    assert "the loss is not a number" in report.page.locator(".unfinished").inner_text()
    # nothing is drawn in the unlit corner of the page: each link leads to a section with a heading
    for link in report.page.locator("nav a").all():
        assert report.page.locator(f"{link.get_attribute('href')} h2").inner_text() == link.inner_text()


def test_curves_are_the_means_of_metrics_csv(real, open_report):
    comparison, _, path = real
    report = open_report(path)
    for metric in ("val/loss", "step/loss", "val/acc"):
        report.choose("curves", metric)
        report.choose("curves-axis", "step")
        traces = [trace for trace in report.plot("curves") if not trace["meta"].get("band")]
        order = report.page.evaluate("groups.map(group => group.label)")
        assert len(traces) == 3
        for trace in traces:
            group = next(group for group in comparison.groups if group.label == order[trace["meta"]["group"]])
            tables = [list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines())) for run in group.runs]
            values = np.array([[float(row[metric]) for row in table if row[metric]] for table in tables])
            steps = [int(row["step"]) for row in tables[0] if row[metric]]
            assert trace["x"] == steps
            np.testing.assert_allclose(trace["y"], (100 if "acc" in metric else 1) * values.mean(0), rtol=1e-4)
    band = next(
        trace
        for trace in report.plot("curves")
        if trace["meta"].get("band") and trace["meta"]["group"] == traces[-1]["meta"]["group"]
    )
    mean, deviation = 100 * values.mean(0), 100 * values.std(0, ddof=1)
    np.testing.assert_allclose(band["y"], [*(mean + deviation), *(mean - deviation)[::-1]], rtol=1e-4)
    assert band["x"] == [*steps, *steps[::-1]]


def test_the_curves_obey_their_controls(real, open_report):
    report = open_report(real[2])
    result = json.loads((real[2].parent / "00/result.json").read_text())
    epochs = report.plot("curves")[-1]["x"]
    assert epochs == pytest.approx([1, 2])
    report.choose("curves-axis", "step")
    steps = report.plot("curves")[-1]["x"]
    assert steps[-1] == result["steps"]
    assert len(report.plot("curves")) == 6
    report.page.get_by_label("bands").uncheck()
    assert len(report.plot("curves")) == 3
    report.page.get_by_label("logarithmic").check()
    report.plot("curves")
    assert report.page.evaluate("document.querySelector('[data-plot=curves]').layout.yaxis.type") == "log"


def test_a_click_sorts_and_another_one_reverses(many, open_report):
    _, found, path = many
    columns = {
        "n": lambda row: row.n,
        "mean": lambda row: row.mean,
        "interval": lambda row: row.interval[0],
        "difference": lambda row: row.difference,
        "p": lambda row: row.p_corrected,
        "seconds": lambda row: row.seconds,
        "memory": lambda row: row.memory,
        "label": lambda row: row.label,
    }
    report = open_report(path)
    for column, value in columns.items():
        known = {row.label: value(row) for row in found if value(row) is not None}
        head = report.page.locator(f"th[data-column={column}]")
        directions = []
        for _ in range(3):
            head.locator("button").click()
            directions.append(head.get_attribute("aria-sort"))
            labels = report.labels()
            assert sorted(labels) == sorted(row.label for row in found)
            assert set(labels[len(known) :]) == {row.label for row in found if value(row) is None}  # last, either way
            shown = [known[label] for label in labels if label in known]
            assert shown == sorted(shown, reverse=directions[-1] == "descending")
        assert directions[0] == directions[2] != directions[1]
        assert set(directions) == {"ascending", "descending"}
        assert report.page.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1


def test_the_table_starts_with_the_best_and_says_every_number(many, open_report):
    _, found, path = many
    report = open_report(path)
    best = sorted(found, key=lambda row: -row.mean)
    assert report.labels() == [row.label for row in best]
    row = next(row for row in best if row.p_corrected is not None)
    cells = report.page.locator(f'tr[data-group="{best.index(row)}"] td:visible').all_inner_texts()[1:]
    text = " ".join(cells)
    for value in (row.mean, row.deviation, *row.interval):
        assert any(f"{100 * value:.{digits}f}" in text for digits in (1, 2, 3))
    assert cells[0] == "5"
    assert "10.0 s" in text and "×1.00" in text and "500.0 MB" in text


def test_the_filter_leaves_the_groups_that_have_all_words(many, open_report):
    _, found, path = many
    report = open_report(path)
    box = report.page.get_by_role("searchbox")
    box.fill("DROPOUT weight_decay=0.001")
    expected = {
        row.label
        for row in found
        if "regularizer.dropout.p" in row.group.values and row.group.values["optimizer.weight_decay"] == 0.001
    }
    assert set(report.labels()) == expected and 0 < len(expected) < 40
    assert report.page.locator("[data-count]").inner_text() == f"{len(expected)} of 40 groups"
    report.page.get_by_label("select all groups in the table").check()
    order = report.page.evaluate("groups.map(group => group.label)")
    assert {order[trace["meta"]["group"]] for trace in report.plot("cost")} == expected
    box.fill("no such words")
    assert report.labels() == []
    box.fill("")
    assert len(report.labels()) == 40


def test_config_columns_are_shown_on_demand(many, open_report):
    _, found, path = many
    report = open_report(path)
    assert not report.page.locator("th.config:visible").count()
    report.page.get_by_text("Config columns").click()
    report.page.get_by_label("optimizer.lr", exact=True).check()
    report.page.keyboard.press("Escape")
    head = report.page.locator("th.config:visible")
    assert head.inner_text().strip().startswith("optimizer.lr")
    head.locator("button").click()
    by_label = {row.label: row.group.values["optimizer.lr"] for row in found}
    rates = [by_label[label] for label in report.labels()]
    assert rates == sorted(rates)


def test_only_the_selected_groups_are_in_the_plots(real, open_report):
    comparison, _, path = real
    report = open_report(path)
    order = report.page.evaluate("groups.map(group => group.label)")

    def shown(name):
        traces = report.plot(name)
        return {
            order[group]
            for trace in traces
            for group in trace["meta"].get("rows", trace["meta"].get("groups", [trace["meta"].get("group")]))
        }

    everything = {group.label for group in comparison.groups}
    names = ["curves", "cost", "forest", "parallel", "classes", "technique-gradient_stats"]
    assert all(shown(name) == everything for name in names)
    report.select(DROPOUT, MIXUP)
    assert all(shown(name) == {DROPOUT, MIXUP} for name in names)
    assert len(report.plot("parallel")[0]["dimensions"][0]["values"]) == 4  # a line a run
    assert shown("confusion") < {DROPOUT, MIXUP}
    report.select(NOTHING)
    assert all(shown(name) == {NOTHING} for name in names)
    assert shown("confusion") == {NOTHING}
    assert not report.page.locator("[data-technique=mixup] figure").is_visible()
    visible = report.page.locator(".differences thead th:visible code").all_inner_texts()
    assert visible == [NOTHING]
    report.page.locator("nav [data-action=clear]").click()
    assert all(shown(name) == everything for name in names)


def test_a_group_has_one_colour_everywhere(real, open_report):
    report = open_report(real[2])
    for scheme in ("light", "dark"):
        report.prefer(scheme)
        curves = {
            trace["meta"]["group"]: trace["line"]["color"] for trace in report.plot("curves") if "band" not in trace["meta"]
        }
        points = {trace["meta"]["group"]: trace["marker"]["color"] for trace in report.plot("cost")}
        means = {
            trace["meta"]["group"]: trace["marker"]["color"]
            for trace in report.plot("forest")
            if trace["meta"]["part"] != "seeds"
        }
        assert curves == points == means and len(set(curves.values())) == 3
        for group, colour in curves.items():
            assert colour in report.page.locator(f'.groups [data-swatch="{group}"]').inner_html()


def test_costs_and_differences_to_choose(real, open_report):
    _, found, path = real
    report = open_report(path)
    order = report.page.evaluate("groups.map(group => group.label)")
    report.choose("cost", "memory")
    memory = {order[trace["meta"]["group"]]: trace["x"][0] for trace in report.plot("cost")}
    assert memory == pytest.approx({row.label: row.memory / 1e6 for row in found}, rel=1e-4)
    forest = report.plot("forest")
    differences = {order[trace["meta"]["group"]]: trace["x"][0] for trace in forest if trace["meta"]["part"] == "difference"}
    assert differences == pytest.approx(
        {row.label: 100 * row.difference for row in found if not row.baseline}, rel=1e-4, abs=1e-9
    )


def test_classes_and_confusion_are_the_sums_over_seeds(real, open_report):
    comparison, _, path = real
    report = open_report(path)
    order = report.page.evaluate("groups.map(group => group.label)")
    counts = {}
    for group in comparison.groups:
        counts[group.label] = sum(
            np.array(json.loads((run.folder / "confusion.json").read_text())["test"][""]["matrix"]) for run in group.runs
        )
    for place, score in enumerate(("precision", "recall", "f1")):
        report.choose("classes-score", {"f1": "F1"}.get(score, score))
        (trace,) = report.plot("classes")
        for row, group in zip(trace["z"], trace["meta"]["rows"], strict=True):
            matrix = counts[order[group]]
            true, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
            expected = precision_recall_fscore_support(true, predicted, labels=range(10), zero_division=0)[place]
            np.testing.assert_allclose([value or 0 for value in row], 100 * expected, rtol=1e-4)
    report.page.locator("[data-control=classes-difference]").check()
    (trace,) = report.plot("classes")
    assert {order[group] for group in trace["meta"]["rows"]} == {DROPOUT, MIXUP}
    # the matrix of a group, its errors, its difference
    report.choose("confusion-group", str(order.index(MIXUP)))
    shares = 100 * counts[MIXUP] / counts[MIXUP].sum(1, keepdims=True)
    (trace,) = report.plot("confusion")
    np.testing.assert_allclose(trace["text"], shares)
    report.choose("confusion-view", "errors")
    (trace,) = report.plot("confusion")
    assert all(trace["z"][place][place] is None for place in range(10))
    report.choose("confusion-view", "difference")
    (trace,) = report.plot("confusion")
    base = 100 * counts[NOTHING] / counts[NOTHING].sum(1, keepdims=True)
    np.testing.assert_allclose(trace["text"], shares - base, atol=1e-9)


def test_light_and_dark(real, open_report):
    report = open_report(real[2])

    def background():
        return report.page.evaluate("getComputedStyle(document.body).backgroundColor")

    def font():
        report.plot("curves")
        return report.page.evaluate("document.querySelector('[data-plot=curves]').layout.font.color")

    light = background(), font()
    report.prefer("dark")
    dark = background(), font()
    assert light[0] != dark[0] and light[1] != dark[1]
    toggle = report.page.get_by_role("button", name="switch between light and dark")
    toggle.click()
    assert (background(), font()) == light
    report.page.reload()  # what was chosen outlives the page
    assert (background(), font()) == light
    report.page.get_by_role("button", name="switch between light and dark").click()
    assert (background(), font()) == dark


def test_everything_can_be_done_with_the_keyboard(real, open_report):
    report = open_report(real[2])
    report.page.locator("th[data-column=mean] button").focus()
    report.page.keyboard.press("Enter")
    assert report.page.locator("th[data-column=mean]").get_attribute("aria-sort") != "none"
    report.page.get_by_role("checkbox", name=f"show {DROPOUT} in the plots").focus()
    report.page.keyboard.press("Space")
    assert report.page.locator("[data-hint]").inner_text().startswith("1 group selected")


def test_200_runs(many, open_report):
    comparison, _, path = many
    assert len(comparison.runs) == 200
    assert path.stat().st_size < 10e6
    report = open_report(path)
    for name in report.plots():
        assert isinstance(report.plot(name), list)
    curves = [trace for trace in report.plot("curves") if not trace["meta"].get("band")]
    baseline = report.page.evaluate("data.baseline")
    assert {trace["meta"]["group"] for trace in curves} == {*[group for group in range(40) if group != baseline][:8], baseline}
    assert all(len(trace["x"]) <= 300 for trace in curves)
    last = report.labels()[-1]
    report.select(last)
    assert {trace["meta"]["group"] for trace in report.plot("curves")} == {39}
    assert len(report.plot("parallel")[0]["line"]["color"]) == 5


def test_nothing_sticks_out_of_the_page(many, open_report):
    report = open_report(many[2])
    for width in (1280, 768, 390):
        report.page.set_viewport_size({"width": width, "height": 800})
        for name in report.plots():
            report.plot(name)
        assert report.page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_of_users_do_no_harm(tmp_path, open_report):
    for number, name in enumerate((EVIL, "<i>b</i>")):
        for seed in range(2):
            whole = config(seed=seed) | {"name": name}
            whole["model"]["activation"] = EVIL if number == 0 else "relu"
            curve = {"val/acc": [0.1, 0.2, 0.3], f"val/{EVIL}": [1, 2, 3], f"{EVIL}/x": [1, 2, 3], "evil/x": [1, 2, 3]}
            folder = leave(
                tmp_path / f"{number}{seed}",
                seed=seed,
                metrics={"test/acc": 0.1 * number},
                curve=curve,
                config=whole,
                techniques=["evil", EVIL],
            )
            task = {"classes": [EVIL, "<i>b</i>"], "matrix": [[3, 1], [0, 4]]}
            (folder / "confusion.json").write_text(json.dumps({"test": {EVIL: task, "other": task}}))
            with open(folder / "histograms.csv", "w", newline="") as file:
                csv.writer(file).writerows(
                    [["step", "name", "low", "high", "counts"], [1, EVIL, 0, 1, "1 2 3"], [2, EVIL, 0, 2, "1 2 3"]]
                )
    leave(tmp_path / "failed", status="failed", error=EVIL, config=config() | {"name": EVIL})
    comparison, _ = report_of([tmp_path], tmp_path / "report.html")
    comparison.notes.append(EVIL)
    write_report(comparison, rows(comparison), tmp_path / "report.html")
    report = open_report(tmp_path / "report.html")
    for place in report.page.locator("[data-plot]").all():
        place.scroll_into_view_if_needed()
        place.hover()
        report.page.wait_for_timeout(100)
    report.choose("curves", f"val/{EVIL}")
    report.plot("curves")
    assert sorted(report.labels()) == sorted([EVIL, "<i>b</i>"])
    assert EVIL in report.page.locator(".notes").inner_text()
    assert EVIL in report.page.locator(".unfinished").inner_text()
    assert report.page.evaluate("window.hacked") is None
    assert report.page.locator("img").count() == 0
    # plotly shows markup where it gets any: it must have got text
    assert report.page.locator('[data-plot="curves"] .ytitle').text_content() == f"val/{EVIL}"
    for name in ("forest", "confusion"):
        report.plot(name)
        ticks = report.page.locator(f'[data-plot="{name}"] .ytick text').all_text_contents()
        assert any(text.startswith("</script><scri") for text in ticks) and "<i>b</i>" in ticks


def test_a_search_is_drawn_in_its_order(tmp_path, open_report):
    search(tmp_path / "s", (0.5, 0.9), (0.8, 0.6), (0.7, 0.95), again=[(0.2, 0.3)], pruned=[0.3])
    report_of([tmp_path / "s"], tmp_path / "report.html")
    report = open_report(tmp_path / "report.html")
    best, trials, pruned = report.plot("search")
    assert (trials["x"], trials["y"], best["y"]) == ([0, 1, 2], [50, 80, 70], [50, 80, 80])
    assert (pruned["x"], pruned["y"]) == ([3], [30]) and pruned["marker"]["symbol"] == "x-thin"


def test_one_group_of_one_run_without_anything_else(tmp_path, open_report):
    leave(tmp_path / "run", metrics={"test/acc": 0.5})
    report_of([tmp_path], tmp_path / "report.html")
    report = open_report(tmp_path / "report.html")
    assert [link.inner_text() for link in report.page.locator("nav a").all()] == ["Results", "Settings"]
    assert all(isinstance(report.plot(name), list) for name in report.plots())


def screenshot(*words):
    return subprocess.run(
        [sys.executable, ROOT / "docs/screenshot.py", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_the_picture_of_the_readme(real, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    path_of_browser()
    done = screenshot(real[2], tmp_path / "picture.png")
    assert (done.returncode, done.stderr) == (0, "")
    picture = Image.open(tmp_path / "picture.png")
    assert picture.width == 1280 and picture.height > 600
    done = screenshot(tmp_path / "none.html", tmp_path / "picture.png")
    assert done.returncode == 1 and done.stderr == f"error: there is no file {tmp_path / 'none.html'}\n"


def test_reliability_and_the_table_of_classes_are_those_of_the_runs(real, open_report):
    comparison, _, path = real
    report = open_report(path)
    order = report.page.evaluate("groups.map(group => group.label)")
    groups = {group.label: group for group in comparison.groups}
    ideal, *traces = report.plot("reliability")
    assert ideal["x"] == ideal["y"] and len(traces) == 3
    for trace in traces:
        bins = [run.tested[""]["reliability"] for run in groups[order[trace["meta"]["group"]]].runs]
        samples, right, sums = (np.sum([each[name] for each in bins], 0) for name in ("samples", "right", "sums"))
        kept = samples > 0
        np.testing.assert_allclose(trace["x"], 100 * sums[kept] / samples[kept], rtol=1e-4)
        np.testing.assert_allclose(trace["y"], 100 * right[kept] / samples[kept], rtol=1e-4)
        error = 100 * np.abs(right - sums).sum() / samples.sum()
        assert (
            f"{order[trace['meta']['group']]}: calibration error {error:.1f} %"
            in report.page.locator('[data-legend="reliability"]').inner_text()
        )
    report.choose("classes-group", str(order.index(MIXUP)))
    matrix = sum(np.array(run.confusion[""][1]) for run in groups[MIXUP].runs)
    true, predicted = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=range(10), zero_division=np.nan)
    rows = [row.locator("th, td").all_inner_texts() for row in report.page.locator('[data-table="classes"] tbody tr').all()]
    for number, cells in enumerate(rows):
        assert cells[:2] == [str(number), str(support[number])]
        for cell, value in zip(cells[2:], (recall, precision, f1), strict=True):
            assert cell == "–" if np.isnan(value[number]) else float(cell) == pytest.approx(100 * value[number], abs=0.06)


def test_predictions_residuals_and_quantiles_are_those_that_were_counted(tmp_path, open_report):
    tasks = [{"size": regression(), EVIL: regression()} for _ in range(2)]
    for number, counted in enumerate(tasks):
        words = ("+regularizer=l2",) if number else ()
        write_tested(leave(tmp_path / str(number), *words, metrics={"test/loss": 1.0 - number / 2}), counted)
    report_of([tmp_path], tmp_path / "report.html")
    report = open_report(tmp_path / "report.html")
    for group, of in (("0", tasks[1]), ("1", tasks[0])):  # the best group first
        for task in ("size", EVIL):
            report.choose("numbers-group", group)
            report.choose("numbers-task", task)
            (column,) = of[task]["columns"]
            map_, ideal = report.plot("against")
            assert map_["customdata"] == column["predicted_true"] and ideal["x"] == column["range"]
            cells, bars = report.plot("residuals")
            assert cells["customdata"] == column["residual_predicted"]
            assert bars["x"] == [sum(row) for row in column["residual_predicted"]]
            assert bars["y"][0] < -column["residual"] < bars["y"][1] < 0  # the first cell lies beyond
    _, *lines = report.plot("coverage")
    assert {line["meta"]["group"] for line in lines} == {0, 1} and lines[0]["x"] == [50]
    assert report.page.evaluate("window.hacked") is None
