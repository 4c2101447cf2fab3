import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from plugins.errors import RecipeError
from recipes.compare.comparison import compare
from recipes.compare.page_sections import PICTURE, SEEN
from recipes.compare.page_texts import ranges
from recipes.compare.report import COLOURS, embedded, write_report
from recipes.compare.runs import find, read
from recipes.compare.statistics import rows
from recipes.compare.table import columns
from recipes.config.catalogue import Catalogue
from tests.recipes.compare.fabricated import config, leave, leave_group
from tests.recipes.compare.test_comparison import search

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


# how eyes without red, green or blue cones see linear RGB (Machado, Oliveira and Fernandes, 2009)
SIGHT = [
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    """Linear RGB of #rrggbb."""
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB."""
    x, y, z = np.cbrt(np.clip(XYZ @ rgb.clip(0, 1) / [0.9505, 1, 1.089], 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("theme", "background"), [("light", "#ffffff"), ("dark", "#181c24")])
def test_colours_are_told_apart_by_everybody(theme, background):
    for sight in SIGHT:
        seen = [lab(np.array(sight) @ linear(colour)) for colour in COLOURS[theme]]
        distances = [np.linalg.norm(one - other) for place, one in enumerate(seen) for other in seen[:place]]
        assert min(distances) > 20
    for colour in COLOURS[theme]:
        bright, dim = sorted((XYZ[1] @ linear(value) + 0.05 for value in (colour, background)), reverse=True)
        assert bright / dim >= 3


def test_data_cannot_end_its_script():
    value = {"</script><!-- ": "\u2028 & ]]> é"}
    text = embedded(value)
    assert not re.search("[<>&\u2028]", text) and json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        embedded(math.nan)


def test_seeds_as_ranges():
    assert ranges([0, 1, 2, 4, 7, 8]) == "0–2, 4, 7–8"


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
    comparison, _, page = report_of(tmp_path)
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


def lead(place):
    """The sentence on top, without markup."""
    report_of(place)
    found = re.search(r'<p class="lead">(.*?)</p>', (place / "report.html").read_text(encoding="utf-8"))[1]
    return re.sub("<.*?>", "", found)


def test_the_sentence_on_top_says_why_there_is_no_p_value(tmp_path):
    five = [0.5, 0.52, 0.51, 0.53, 0.5]
    leave_group(tmp_path / "shift", "a", five)
    leave_group(tmp_path / "shift", "b", [value + 0.1 for value in five], "+regularizer=dropout")
    assert "+10.0 points against the baseline nothing added, the same for every seed; a test" in lead(tmp_path / "shift")
    leave_group(tmp_path / "diverged", "a", [0.5, math.nan, 0.51, 0.53, 0.5])
    leave_group(tmp_path / "diverged", "b", five, "+regularizer=dropout")
    assert lead(tmp_path / "diverged").endswith("the baseline nothing added has no number for every seed.")
    leave_group(tmp_path / "apart", "a", five)
    leave(tmp_path / "apart/b", "+regularizer=dropout", seed=9, metrics={"test/acc": 0.9})
    assert lead(tmp_path / "apart").endswith("It shares no seed with the baseline nothing added.")


def test_a_group_that_equals_the_baseline_is_not_called_the_best(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.52, 0.51], "+regularizer=l2")  # found first
    leave_group(tmp_path, "b", [0.5, 0.52, 0.51])
    assert lead(tmp_path) == "No group is better than the baseline nothing added in its mean test accuracy, 51.0 ± 1.0\u00a0%."


def test_a_difference_over_some_of_the_seeds_is_said_to_be_one(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6, 0.55, 0.57])
    leave_group(tmp_path, "b", [0.4, 0.52], "+regularizer=l2")
    for seed in (7, 8):
        leave(tmp_path / f"b{seed}", "+regularizer=l2", seed=seed, metrics={"test/acc": 0.9})
    said = lead(tmp_path)
    assert "+regularizer=l2 has the best mean" in said and "−9.0 points" in said and "over the seeds that both have" in said


def test_times_and_sizes_have_one_unit_as_on_the_terminal(tmp_path):
    for number, (words, seconds, memory) in enumerate([((), 91.0, 8e8), (("+regularizer=l2",), 87.1, 2.1e9)]):
        leave(tmp_path / str(number), *words, seconds=seconds, peak_memory=memory)
    _, found, _ = report_of(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("time", "memory"):
        cells = next(column.cells for column in columns(found) if column.name == name)
        values = [cell.partition(" ×")[0] for cell in cells]
        assert len({value.split()[1] for value in values}) == 1 and all(f">{value} <span" in text for value in values)


def test_groups_without_a_number_are_last_and_break_nothing(tmp_path):
    leave_group(tmp_path, "a", [0.5, 0.6])
    leave_group(tmp_path, "b", [0.7, math.nan], "+regularizer=dropout")
    leave_group(tmp_path, "c", [0.4], "+regularizer=l2", seconds=math.nan, peak_memory=None, epochs=None, steps=None)
    _, _, page = report_of(tmp_path)
    assert [group["label"] for group in page.data["groups"]][-1] == "+regularizer=dropout"


def test_sections_without_data_are_left_out(tmp_path):
    leave(tmp_path / "0")
    _, _, page = report_of(tmp_path)
    assert page.sections == ["results", "settings"]  # the page of one run
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


def test_a_picture_is_told_for_what_it_is(tmp_path):
    for name, words in {"0": ("+diagnostics=weight_norm",), "1": ("+augmentation=cutout",)}.items():
        option = words[0].partition("=")[2]
        folder = leave(tmp_path / name, *words, techniques=[option])
        (folder / "pictures").mkdir()
        Image.new("L", (2, 2)).save(folder / "pictures" / f"{option}.png")
    report_of(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'alt="what weight_norm has seen"' in page and SEEN in page
    assert 'alt="what cutout does to a batch"' in page and PICTURE in page


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
        curve = {"val/acc": [0.1, 0.2], f"val/{name}": [1, 2], f"l2/{name}": [1, 2]}
        folder = leave(place / "0", config=config() | {"name": name}, curve=curve, techniques=["l2", name])
        task = {"classes": [name, "b"], "matrix": [[3, 1], [0, 4]]}
        (folder / "confusion.json").write_text(json.dumps({"test": {name: task}}))
        leave(place / "1", status="failed", error=name)
    before, after = report_of(clean)[2], report_of(tmp_path / "dirty")[2]
    assert [tag for tag, _ in before.elements] == [tag for tag, _ in after.elements]
    assert after.data["groups"][0]["label"] == evil
    assert not any(name.startswith("on") for _, attributes in after.elements for name in attributes)


def test_the_name_of_the_metric_stays_text(tmp_path):
    name = "<img src=x onerror=alert(1)>"
    for number in range(2):
        leave(
            tmp_path / str(number),
            *(["+regularizer=l2"] if number else []),
            metrics={f"test/{name}": 0.5 + number / 10},
            monitor=f"val/{name}",
            directions={name: "max"},
        )
    _, _, page = report_of(tmp_path)
    assert "img" not in [tag for tag, _ in page.elements]


def test_the_page_names_no_file_and_no_address_to_load(tmp_path):
    leave(tmp_path / "0")
    _, _, page = report_of(tmp_path)
    loaded = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert loaded and all(address.startswith(("#", "data:")) for address in loaded)
    policy = next(attributes["content"] for attributes, _ in page.all("meta") if "http-equiv" in attributes)
    assert "default-src 'none'" in policy and "http" not in policy


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    leave(tmp_path / "0")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RecipeError, match=r"report\.html cannot be written"):
        report_of(tmp_path)


@pytest.mark.parametrize(("seeds", "said"), [([0], ("seed", "0")), ([7], ("seed", "7")), ([0, 1, 2, 5], ("4 seeds", "0–2, 5"))])
def test_the_head_says_how_many_seeds_there_are_and_which(tmp_path, seeds, said):
    for seed in seeds:
        leave(tmp_path / str(seed), seed=seed)
    page = report_of(tmp_path)[2]
    facts = {name: value for (_, name), (_, value) in zip(page.all("dt"), page.all("dd"), strict=True)}
    assert facts[said[0]] == said[1] and facts["data set"] == "digits"


def test_the_head_of_a_search_is_what_validation_chose(tmp_path):
    search(tmp_path, (0.5, 0.9), (0.8, 0.6), (0.7, 0.95))
    page = report_of(tmp_path)[2]
    text = " ".join(text for attributes, text in page.all("p") if attributes.get("class") == "lead") + " ".join(page.texts)
    assert "The search chose" in text and "by val/acc: validation accuracy 80.00" in text and "test accuracy 60.00" in text
    assert "No group is better" not in text and "has the best mean" not in text


def test_the_head_of_a_search_says_what_fresh_seeds_say(tmp_path):
    search(tmp_path, (0.5, 0.9), (0.8, 0.6), again=[(0.2, 0.3), (0.4, 0.1)])
    text = (tmp_path / "report.html").read_text() if report_of(tmp_path) else ""
    lead = re.search(r'<p class="lead">(.*?)</p>', text)[1].replace("\u00a0", " ")
    assert "validation accuracy 80.00 % and test accuracy 60.00 %." in lead
    assert "2 fresh seeds, by which nothing was chosen: validation accuracy 30.00 % and test accuracy 20.00 %." in lead


def test_rates_that_rounding_has_lengthened_are_written_short(tmp_path):
    for number, rate in enumerate((0.00010000000000000002, 0.001, 0.010000000000000002)):
        leave(tmp_path / str(number), f"optimizer.lr={rate!r}", metrics={"test/acc": 0.5 + number / 10})
    page = report_of(tmp_path)[2]
    axis = page.data["figures"]["parallel"]["data"][0]["dimensions"][0]
    assert axis["ticktext"] == ["0.0001", "0.001", "0.01"]
    assert "0.00010000000000000002" not in (tmp_path / "report.html").read_text()


def test_what_was_changed_on_the_way_is_in_the_report(tmp_path):
    history = [{"step": 0, "command": [], "changed": {}}, {"step": 9, "command": [], "changed": {"trainer.devices": [1, 2]}}]
    leave(tmp_path / "1", history=history)
    leave(tmp_path / "2")
    page = report_of(tmp_path)[2]
    cells = [text for attributes, text in page.all("td") if attributes.get("class") == "changed"]
    assert "trainer.devices 1→2 at step 9" in cells
    assert any("changed on the way" in text for _, text in page.all("li"))
