"""A package with an option whose epochs take their time: what is killed while it trains is in the middle on a fast machine too."""

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
    package, info = folder / "packages" / "slowly", folder / "packages" / "slowly-1.0.dist-info"
    if not package.exists():
        (package / "conf" / "diagnostics").mkdir(parents=True)
        (package / "conf" / "diagnostics" / "slowly.yaml").write_text("slowly:\n  _target_: slowly.Slowly\n")
        (package / "__init__.py").write_text(SLOWLY)
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowly\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[lightning_recipes]\nslowly = slowly.conf\n")
    return {"PYTHONPATH": str(package.parent), "SECONDS_AN_EPOCH": str(seconds)}
