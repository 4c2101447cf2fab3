import math
import time
from types import SimpleNamespace

import pytest

from benchmarks import diagnostics


def test_the_cost_at_an_interval_is_that_of_steps_and_of_a_look():
    """A look of 5 s, in steps of 1 s, each of which takes 1 % longer, beside a row that both log: 1.01 + 5/1000 at 1000 steps."""
    assert diagnostics.costs([(1.01, 5.3)] * 2, [(1.0, 0.3)] * 2, 1000) == pytest.approx([1.015] * 2)


def test_of_a_block_the_median_step_and_what_its_ends_take_beside():
    times = iter([0.0, 7.0, 8.0, 9.0, 12.0, 12.0])
    turns = diagnostics.Turns()
    turns.left = {0}
    side = diagnostics.TakeTurns(turns, 0, 4, lambda: next(times))
    trainer = SimpleNamespace(global_step=0)
    side.on_train_start(trainer, None)
    for trainer.global_step in range(1, 5):
        side.on_train_batch_end(trainer, None)
    assert side.blocks == [(2.0, 6.0)]


@pytest.mark.slow
def test_each_is_measured_or_says_why_not(capsys):
    diagnostics.main(["lr", "calibration", "activation_stats", "--models", "mlp", "--rounds", "1"])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("torch ")
    cells = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]
    assert [row[:2] for row in cells] == [["lr", "mlp"], ["calibration", "mlp"], ["activation_stats", "mlp"]]
    assert all(math.isfinite(float(row[2])) and float(row[2]) > 0 for row in cells)


def test_two_trainings_take_turns():
    turns, order = diagnostics.Turns(), []
    threads = []

    def work(side):
        for _ in range(3):
            turns.wait_for(side)
            order.append(side)
            time.sleep(0.001)
            turns.pass_on(side)
        turns.pass_on(side, ends=True)

    for side in (0, 1):
        threads.append(diagnostics.threading.Thread(target=work, args=(side,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert order == [0, 1] * 3
