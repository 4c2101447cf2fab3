"""What an earlier start of a search has left open. Optuna is imported where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STUDY_NAME = "search"  # by which Hyperband spreads the trials: one that goes on has the same
KEPT = "kept"  # of a trial whose first job has ended and is not given up, while those with other seeds are trained
UNJUDGED = "unjudged"  # of the study: what was open at its beginning


def unjudged(journal: Path) -> list[dict[str, Any]]:
    """The parameters of trials of which it was not said, or not yet noted in a job's folder, whether their first job is given up.

    It may have ended by itself just before the search was killed.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    if not journal.is_file():
        return []
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
        trials = study.get_trials(deepcopy=False)
        kept = [trial.params for trial in trials if trial.state is TrialState.COMPLETE or KEPT in trial.user_attrs]
        left = [trial.params for trial in trials if trial.state in (TrialState.RUNNING, TrialState.PRUNED)]
        return [params for params in [*study.user_attrs.get(UNJUDGED, []), *left] if params not in kept]
    except Exception:  # whatever half a journal or one of somebody else does: it is written anew
        return []
