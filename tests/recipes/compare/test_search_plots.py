import pytest

from recipes.compare.search_plots import course
from recipes.compare.statistics import rows
from tests.recipes.compare.test_comparison import comparison, search


@pytest.mark.parametrize(("monitor", "best"), [("val/acc", [50.0, 80.0, 80.0]), ("val/loss", [0.5, 0.5, 0.5])])
def test_trials_in_their_order_with_what_was_given_up_and_the_best_so_far(tmp_path, monitor, best):
    search(tmp_path, (0.5, 0.9), (0.8, 0.6), (0.7, 0.95), monitor=monitor, again=[(0.2, 0.1)], pruned=[0.3, 0.4])
    found = comparison(tmp_path)
    drawn = course(found, rows(found))
    traces = {trace["meta"]["part"]: trace for trace in drawn["data"]}
    scale = 100 if monitor == "val/acc" else 1
    assert list(traces["trial"]["x"]) == [0, 1, 2]
    assert list(traces["trial"]["y"]) == pytest.approx([0.5 * scale, 0.8 * scale, 0.7 * scale])  # without the fresh seeds
    assert list(traces["best"]["y"]) == pytest.approx(best)
    assert list(traces["pruned"]["x"]) == [3, 4] and list(traces["pruned"]["y"]) == pytest.approx([0.3 * scale, 0.4 * scale])
    assert "optimizer.lr=0.04" in traces["pruned"]["text"][0] and traces["trial"]["text"][1] == "optimizer.lr=0.2"


def test_without_a_number_there_is_nothing_to_draw(tmp_path):
    search(tmp_path, (float("nan"), 0.5), (float("nan"), 0.6))
    found = comparison(tmp_path, metric="test/acc")
    assert course(found, rows(found)) == {}
