import random

import pytest
import yaml

from benchmarks import cost
from plugins.base import RecipeError
from recipes.check.choice import options


def test_options_are_found_in_conf_and_ratios_are_those_of_a_step():
    """SAM asks for the gradient twice, clipping for a norm: on any machine the one costs far more than the other."""
    # nothing in a step, with one task, or in the first phase
    others = ("init/", "metric/", "multitask/", "distillation/self", "stopping/early_")
    assert set(cost.asked()) == {name for name in options() if not name.startswith(others)}
    assert cost.asked(["wrapper"]) == [name for name in options() if name.startswith("wrapper/")]
    costs = cost.Costs(rounds=4, steps=3)
    ratio, low, high = costs.of("wrapper/sam")
    assert low <= ratio <= high and 1.4 < ratio < 4
    assert costs.of("clipping/norm")[0] < ratio


def test_the_file_keeps_what_was_not_measured_anew(tmp_path, monkeypatch, capsys):
    file = tmp_path / "costs.yaml"
    cost.write({"wrapper/sam": [2.0, 1.9, 2.1], "clipping/norm": [1.1, 1.0, 1.2]}, {}, file)

    def of(self, name):
        if name == "wrapper/gradient_noise":
            raise RecipeError("no such images")
        return [3.0, 2.9, 3.1]

    monkeypatch.setattr(cost.Costs, "of", of)
    cost.main(["wrapper", "--output", str(file)])
    anew = {name: [3.0, 2.9, 3.1] for name in cost.asked(["wrapper"]) if name != "wrapper/gradient_noise"}
    assert cost.read(file)["ratios"] == {"clipping/norm": [1.1, 1.0, 1.2], **anew}
    assert {"machine", "torch", "model", "date"} <= yaml.safe_load(file.read_text())["measured"].keys()
    assert "no such images" in capsys.readouterr().out
    assert cost.read(tmp_path / "nothing.yaml")["ratios"] == {}


@pytest.mark.slow
def test_options_are_measured_or_say_why_not(tmp_path):
    """Other ones each time."""
    costs = cost.Costs(rounds=1, steps=1)
    told, asked = {}, random.sample(cost.asked(), len(cost.asked()) // 4)
    for name in asked:
        try:
            print(name)  # told if it fails
            assert len(costs.of(name)) == 3
        except RecipeError as error:
            told[name] = str(error)
    assert not [message for message in told.values() if "\n" in message] and len(told) < 0.2 * len(asked)
