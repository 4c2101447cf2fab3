"""What inputs are prepared with is in the file that a run is exported as, for any number of samples."""

import pytest
import torch

from plugins.base import Setting
from plugins.normalization.ghost_batch import GhostBatchNormalization
from plugins.normalization.rms import RMSNormalization
from plugins.normalization.weight_standardization import WeightStandardization
from plugins.preprocessing.minmax import MinMaxInputs
from plugins.preprocessing.whiten import WhitenInputs
from plugins.preprocessing.width import WidthInputs
from recipes.models.cnn import CNN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "inputs"),
    [(GhostBatchNormalization, MinMaxInputs), (RMSNormalization, WhitenInputs), (WeightStandardization, WidthInputs)],
)
def test_an_exported_program_predicts_the_same(norm, inputs):
    x, model = torch.rand(40, 1, 8, 8), CNN((1, 8, 8), 3, [4], 8)
    for plugin in (norm(), inputs()):
        plugin.prepare(Setting((1, 8, 8), (), training_inputs=lambda: iter([x])))
        model = plugin.transform_model(model)
    with torch.no_grad():
        program = torch.export.export(model.eval(), (x[:4],), dynamic_shapes=({0: torch.export.Dim("samples", min=1)},))
        torch.testing.assert_close(program.module()(x[:7]), model(x[:7]))
