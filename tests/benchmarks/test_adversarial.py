import re

import pytest

from benchmarks import adversarial
from benchmarks.data import ResizedDigits
from recipes.config.catalogue import Catalogue


@pytest.fixture(scope="module")
def data():
    found = ResizedDigits(batch_size=16)
    found.setup()
    return found


@pytest.mark.parametrize(
    ("attack", "forward", "backward"),
    [
        (None, 1, 1),
        ("fgsm", 2, 2),
        ("fgsm_rs", 2, 2),
        ("n_fgsm", 2, 2),
        ("free", 1, 1),
        ("pgd", 11, 11),
        ("trades", 13, 12),  # what is predicted for the clean samples is known before the first step
    ],
)
def test_passes_of_a_step(data, attack, forward, backward):
    words = adversarial.words_of(attack) if attack else []
    assert adversarial.passes(words, data) == (forward, backward)


def test_every_attack_is_in_the_table():
    assert set(adversarial.ATTACKS) == set(Catalogue().groups["adversarial"])


def test_the_table_has_passes_and_ratios(capsys):
    """On any machine a second pass costs far more than what free does beside its own."""
    adversarial.main(["--attacks", "fgsm", "free", "--rounds", "3"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith(("fgsm", "free"))}
    found = {name: [float(number) for number in re.findall(r"\d+\.\d+|\d+", row)] for name, row in rows.items()}
    assert found["fgsm"][:2] == [2, 2] and found["free"][:2] == [1, 1]
    assert found["free"][2] < found["fgsm"][2] < 4
