"""Several finished runs, or values: measured as each by itself, in one table and, over the numbers of one key, as a picture."""

import numpy as np
import pytest

from recipes.cli.words import each_value
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run
from recipes.run.evaluate import evaluate
from recipes.run.evaluations import evaluate_each
from tests.command import command, mistake
from tests.recipes.run.test_limits import files

CATALOGUE = Catalogue()
ATTACK = ("+adversarial=pgd", "adversarial.eps=0.2,0,0.05")


def jobs(folders, *words):
    """What `python evaluate.py FOLDERS WORDS` measures."""
    return [
        (place.path, change(CATALOGUE, read_run(CATALOGUE, place.path), changes, ON_EVALUATION, "evaluation"), changes, values)
        for place in folders
        for changes, values in each_value(CATALOGUE, words)
    ]


@pytest.fixture
def runs(folders):
    """A plain run, and one that was trained under attack."""
    plain, robust = folders("plain"), folders("robust")
    plain.train("model=linear", "max_steps=120")
    robust.train("model=linear", "max_steps=120", "+adversarial=fgsm", "adversarial.eps=0.1")
    return plain, robust


def test_each_run_is_attacked_at_each_eps_by_one_ruler(runs, capsys):
    plain, robust = runs
    before = files(robust)
    capsys.readouterr()
    results = evaluate_each(jobs(runs, *ATTACK))
    printed = capsys.readouterr().out
    assert [(result["folder"], result["values"]) for result in results] == [
        (str(run.path), {"adversarial.eps": eps}) for run in runs for eps in ("0.2", "0", "0.05")
    ]
    accuracy = {(result["folder"], result["values"]["adversarial.eps"]): result["metrics"] for result in results}
    for run in runs:
        at = {eps: accuracy[str(run.path), eps]["test/acc_pgd"] for eps in ("0", "0.05", "0.2")}
        assert at["0"] == pytest.approx(accuracy[str(run.path), "0"]["test/acc"]) and at["0"] >= at["0.05"] >= at["0.2"]
        assert at["0"] > at["0.2"]
        config = change(
            CATALOGUE, read_run(CATALOGUE, run.path), ["+adversarial=pgd", "adversarial.eps=0.05"], ON_EVALUATION, "evaluation"
        )
        assert evaluate(run.path, config, [])["metrics"] == accuracy[str(run.path), "0.05"]
    assert results[0]["rulers"]["acc_pgd"] == results[3]["rulers"]["acc_pgd"]
    assert all(heading in printed for heading in (" run ", " adversarial.eps ", " acc ", " acc_pgd ", " acc_fgsm "))
    picture = plain.path / "adversarial.eps.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and f"picture  {picture}" in printed
    assert files(robust) == before


def test_what_runs_measured_in_different_ways_is_left_out(folders, capsys):
    first, second = folders("first"), folders("second")
    for run, eps in ((first, 0.1), (second, 0.2)):
        run.train("model=linear", "max_steps=5", "+adversarial=pgd", f"adversarial.eps={eps}")
    capsys.readouterr()
    evaluate_each(jobs((first, second)))
    printed = capsys.readouterr().out
    assert (
        "not compared: test/acc_pgd with adversarial.eval_eps 0.1, 0.2; give all the same, such as +adversarial=pgd" in printed
    )
    table = printed.partition("not compared")[0]
    assert " acc " in table and "acc_pgd" not in table and not list(first.path.glob("*eps.png"))


def test_words_with_several_values_are_spread_and_all_others_stay():
    words = ["+inference=mc_dropout,temperature", "trainer.precision=32-true", "data.batch_size=8,16"]
    found = list(each_value(CATALOGUE, words))
    assert [values for _, values in found] == [
        {"inference": kind, "data.batch_size": size} for kind in ("mc_dropout", "temperature") for size in ("8", "16")
    ]
    assert found[1][0] == ["+inference=mc_dropout", "trainer.precision=32-true", "data.batch_size=16"]
    assert list(each_value(CATALOGUE, ["data.batch_size=8"])) == [(["data.batch_size=8"], {})]


def test_the_command(folders, tmp_path):
    run = folders("mine")
    run.train("model=linear", "max_steps=20")
    place = tmp_path / "elsewhere"
    place.mkdir()
    done = command("evaluate.py", str(run.path), *ATTACK, cwd=place, forked=True)
    assert done.returncode == 0 and " acc_pgd " in done.stdout and (run.path / "adversarial.eps.png").exists()
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 3 and np.isclose(float(rows[1].split("│")[3]), float(rows[1].split("│")[5]), atol=1e-4)
    wrong = mistake(str(run.path), "+adversarial=pgd", "adversarial.eps=0,-1", cwd=place, script="evaluate.py", forked=True)
    assert "adversarial.eps must be a number ≥ 0, got -1" in wrong
