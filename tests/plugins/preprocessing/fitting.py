"""What the tests of preprocessing share."""

from torch import nn

from plugins.base import Setting

SHAPES = [
    (None, (3, 4, 5), (0, 2, 3)),
    ("feature", (3, 4, 5), 0),
    ("channel", (3, 7), (0, 2)),
    (None, (6,), 0),
    ("channel", (6,), 0),
    (None, (1, 4, 4), (0, 2, 3)),
]  # `per`, the shape of a sample, and the axes over which statistics are taken then


def fitted(plugin, x, pieces=(5, 1, 4)):
    """The layer that a plugin puts in front of a model, fitted on samples that come in several batches."""
    plugin.prepare(Setting(tuple(x.shape[1:]), (), training_inputs=lambda: iter(x.split([*pieces, len(x) - sum(pieces)]))))
    return plugin.transform_model(nn.Identity())
