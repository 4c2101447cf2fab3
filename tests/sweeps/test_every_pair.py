"""Every pair of techniques trains, in runs of about eight; the order they are written in is free. See test_refusals for the others."""

import pytest

from recipes.check.harness import config_of, merged_config
from recipes.check.selections import everything, fault_of
from tests.sparsely import sparsely

SHARES = 48


@pytest.mark.parametrize("share", sparsely(range(SHARES), SHARES))
def test_runs_that_cover_all_pairs_train(share, tmp_path, record_property):
    selections = everything()
    runs = selections.runs[share::SHARES]
    assert runs
    assert merged_config(runs[0]) == config_of(runs[0])
    faults = [(names, fault) for names in runs if (fault := fault_of(names, tmp_path)) is not None]
    record_property("sweep: runs", len(runs))  # summed up at the end of the session
    assert not faults, "\n".join(selections.told(names, fault, tmp_path) for names, fault in faults)
