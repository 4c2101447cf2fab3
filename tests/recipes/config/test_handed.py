"""A job takes over what its sweep has composed, which is what it would have composed itself."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from recipes.config.catalogue import FOLDER, Catalogue
from recipes.config.composing import compose, compose_checked
from recipes.config.handed import composed_for, handed_over, taken_over

CATALOGUE = Catalogue()
OF_A_JOB = ["hydra.run.dir='a b/${c}'", "hydra.job.num=3", "hydra.job.id='3'"]
JOBS = [
    ["seed=3"],
    ["seed=3", "optimizer=adam", "optimizer.lr=0.1", "+regularizer=[dropout,l1]", "+wrapper=sam", "recipe=digits_baseline"],
    ["name=${hydra:job.num}-${now:%Y}", "notes='a, b'", "+wrapper=none"],
]


@pytest.mark.parametrize("words", JOBS, ids=len)
def test_is_what_the_job_would_compose(words):
    words = [*words, *(word.replace("${", "\\${") for word in OF_A_JOB)]
    expected = compose_checked(CATALOGUE, words)
    with initialize_config_dir(str(FOLDER), version_base="1.3"):  # as within a sweep
        found = taken_over(words, handed_over(words, composed_for(CATALOGUE, words)))
    assert found.words == expected.words
    assert OmegaConf.to_container(found.config) == OmegaConf.to_container(expected.config)
    assert found.config.hydra.run.dir == "a b/${c}" and found.config.hydra.job.num == 3
    assert OmegaConf.is_struct(found.config) == OmegaConf.is_struct(expected.config)


def test_hydra_finds_everything_as_it_was():
    config = compose(["seed=1"])
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        at_work = GlobalHydra.instance().hydra
        HydraConfig.instance().set_config(config)
        for words in (["seed=2"], ["seed=2", "no_key=1"]):
            composed_for(CATALOGUE, words)
            assert GlobalHydra.instance().hydra is at_work and HydraConfig.get().overrides.task == ["seed=1"]
    HydraConfig.instance().cfg = None


def test_what_is_wrong_is_left_to_the_job():
    words = ["optimizer=adam", "optimizer.momentum=0.9"]
    assert composed_for(CATALOGUE, words) is None
    assert handed_over(words, None) == b"" and taken_over(words, b"") is None


def test_other_words_are_composed_by_the_job():
    given = handed_over(["seed=1"], composed_for(CATALOGUE, ["seed=1"]))
    assert taken_over(["seed=1"], given) and taken_over(["seed=1", "max_epochs=2"], given) is None
