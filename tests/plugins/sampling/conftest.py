import lightning as L
import pytest


@pytest.fixture
def make_trainer(tmp_path):
    def make(**arguments):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        return L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **arguments)

    return make
