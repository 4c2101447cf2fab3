"""A package with an option whose epochs take their time: what is killed while it trains is in the middle on a fast machine too."""

from tests.packages import make_diagnostics

SLOWLY = """
import os, time
from plugins.base import Plugin, Stage
class Slowly(Plugin):
    stage, group, option = Stage.DIAGNOSTICS, "diagnostics", "slowly"
    def on_train_epoch_end(self, trainer, module):
        time.sleep(float(os.environ.get("SECONDS_AN_EPOCH", 0)))
"""
WORD = "+diagnostics=slowly"


def slowly(folder, seconds=0.0):
    """The variables with which `WORD` can be typed, and an epoch takes so many seconds more; results stay as they are."""
    packages = folder / "packages"
    if not packages.exists():
        make_diagnostics(packages, "slowly", SLOWLY)
    return {"PYTHONPATH": str(packages), "SECONDS_AN_EPOCH": str(seconds)}
