import io
import re

import pytest
from rich.console import Console

from recipes.run import train
from recipes.run.progress import ProgressBar


def shown(folder, monkeypatch, terminal, *words):
    """What a run prints, at a terminal or not."""
    text = io.StringIO()
    monkeypatch.setattr(train, "Console", lambda quiet: Console(file=text, force_terminal=terminal, width=100, quiet=quiet))
    folder.train("trainer.progress=true", "max_epochs=2", *words)
    return text.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_validation(folder, monkeypatch):
    lines = [line for line in shown(folder, monkeypatch, False).splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        row = folder.rows[0] if number == 1 else folder.rows[-1]
        numbers = "  ".join(f"{name} {float(row[name]):.4f}" for name in ("train/loss", "train/acc", "val/loss", "val/acc"))
        assert line == f"epoch {number}/2  {numbers}"


def test_at_a_terminal_there_is_a_bar(folder, monkeypatch):
    monkeypatch.setattr(ProgressBar.__init__, "__defaults__", (0.0,))  # at each step
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(folder, monkeypatch, True))
    assert "epoch 1/2" in text and "epoch 2/2" in text and "100%" in text and "val/acc" in text
    assert not re.search(r"^epoch \d  train/loss", text, re.MULTILINE)


def test_the_bar_is_taken_away_when_training_breaks(folder, monkeypatch, with_plugin, extra):
    bars = []

    class Breaks(extra):
        def after_step(self, module, optimizer):
            (bar,) = [callback for callback in module.trainer.callbacks if isinstance(callback, ProgressBar)]
            bars.append(bar)
            raise OverflowError

    with_plugin(Breaks)
    with pytest.raises(OverflowError):
        shown(folder, monkeypatch, True)
    assert bars[0].bar is None
