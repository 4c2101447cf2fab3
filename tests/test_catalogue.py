"""Every row of the catalogue is an option with the parameters it names, and every option of these groups is a row of it."""

from pathlib import Path

import pytest
import yaml

from recipes.config.catalogue import Catalogue

ROWS = yaml.safe_load((Path(__file__).parent / "data" / "catalogue.yaml").read_text(encoding="utf-8"))
BESIDE = {"preprocessing/pretrained", "loss/by_task"}  # which the catalogue has in the notes of other rows


@pytest.fixture(scope="module")
def groups():
    return Catalogue().groups


@pytest.mark.parametrize("group", ROWS)
def test_no_row_is_missing(groups, group):
    missing = [f"{group}/{name}" for name in ROWS[group] if name not in groups.get(group, {})]
    assert not missing, f"{len(missing)} of {len(ROWS[group])} rows have no option: {', '.join(missing)}"


@pytest.mark.parametrize("group", ROWS)
def test_parameters_are_named_as_in_the_row(groups, group):
    wrong = [
        f"{group}/{name}: {parameter}"
        for name, parameters in ROWS[group].items()
        if name in groups.get(group, {})
        for parameter in parameters
        if parameter not in groups[group][name].parameters
    ]
    assert not wrong, f"parameters that the rows name and the options do not have: {', '.join(wrong)}"


@pytest.mark.parametrize("group", ROWS)
def test_no_option_is_beside_the_catalogue(groups, group):
    beside = {f"{group}/{name}" for name in groups.get(group, {}) if name not in ROWS[group]} - BESIDE
    assert not beside, f"options that no row names; add a line to tests/data/catalogue.yaml: {', '.join(sorted(beside))}"
