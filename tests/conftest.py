import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side; the result of a run does not depend on the number of threads here."""
    torch.set_num_threads(1)
