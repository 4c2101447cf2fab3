import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.inputs import Entry
from recipes.models.rnn import RecurrentModel

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}
TOKENS = {"tokens": Entry((6,), "int64", 9, 0), "mask": Entry((6,), "bool")}
STEPS = {"x": Entry((6, 3), "float32"), "mask": Entry((6,), "bool")}
SETTINGS = [(cell, layers, both) for cell in KINDS for layers, both in ((1, False), (2, False), (1, True), (3, True))]
each_setting = pytest.mark.parametrize(("cell", "layers", "both"), SETTINGS)


def as_torchs(model, cell, features):
    """torch's own layers, with the weights of the model."""
    both = model.layers[0].back is not None
    theirs = KINDS[cell](features, model.hidden, len(model.layers), bidirectional=both, batch_first=True)
    for number, layer in enumerate(model.layers):
        for part, ending in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name, value in part.named_parameters() if part is not None else ():
                getattr(theirs, name.replace("_l0", f"_l{number}{ending}")).data.copy_(value)
    return theirs


def last_state(theirs, x):
    """The state at the end of each direction of the last layer, by hand from all states."""
    states = theirs(x)[0]
    size = theirs.hidden_size
    return torch.cat([states[:, -1, :size], states[:, 0, size:]], 1)


def prefix_mask(samples=5, steps=6):
    return torch.arange(steps) < torch.arange(1, samples + 1)[:, None]


@each_setting
def test_equals_torchs_layers(cell, layers, both):
    model, x = RecurrentModel((6, 3), 4, cell, hidden=5, layers=layers, bidirectional=both), torch.randn(7, 6, 3)
    theirs = as_torchs(model, cell, 3)
    torch.testing.assert_close(model(x), model.head(last_state(theirs, x)))
    hidden = theirs(x)[1]
    hidden = hidden[0] if cell == "lstm" else hidden
    torch.testing.assert_close(model(x), model.head(hidden[-1 - both :].transpose(0, 1).flatten(1)))


@each_setting
def test_with_a_mask_each_sample_ends_with_its_last_valid_step(cell, layers, both):
    model = RecurrentModel(STEPS, 4, cell, hidden=5, layers=layers, bidirectional=both)
    theirs, x, mask = as_torchs(model, cell, 3), torch.randn(5, 6, 3), prefix_mask()
    mask[4] = torch.tensor([False, True, False, True, True, False])  # what is left out may stand anywhere
    expected = torch.cat([last_state(theirs, row[kept][None]) for row, kept in zip(x, mask, strict=True)])
    found = model({"x": x, "mask": mask})
    torch.testing.assert_close(found, model.head(expected))
    other = torch.where(mask[..., None], x, torch.full_like(x, torch.nan))
    assert torch.equal(model({"x": other, "mask": mask.long()}), found)


@each_setting
def test_more_padding_changes_nothing(cell, layers, both):
    model = RecurrentModel(STEPS, 4, cell, hidden=5, layers=layers, bidirectional=both)
    x, mask = torch.randn(5, 6, 3), prefix_mask()
    more = {"x": torch.cat([x, torch.full((5, 8, 3), torch.nan)], 1), "mask": torch.cat([mask, torch.zeros(5, 8)], 1)}
    torch.testing.assert_close(model(more), model({"x": x, "mask": mask}), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("both", [False, True])
def test_tokens_are_embedded(both):
    model = RecurrentModel(TOKENS, 3, "gru", hidden=4, bidirectional=both)
    x = {"tokens": torch.randint(10, (5, 6)), "mask": prefix_mask()}
    theirs, steps = as_torchs(model, "gru", 4), model.embedding(x["tokens"])
    expected = torch.cat([last_state(theirs, row[kept][None]) for row, kept in zip(steps, x["mask"], strict=True)])
    torch.testing.assert_close(model(x), model.head(expected))
    other = torch.where(x["mask"], x["tokens"], -7)
    assert torch.equal(model({**x, "tokens": other}), model(x))
    assert model.embedding.num_embeddings == 10


def test_a_sample_without_a_step_is_finite():
    model, x = RecurrentModel(STEPS, 3, bidirectional=True, hidden=4), {"x": torch.randn(5, 6, 3), "mask": prefix_mask()}
    x["mask"][2] = False
    found = model(x)
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(found[2], model.head.bias)


def test_rows_of_an_image_are_steps():
    model, x = RecurrentModel((2, 4, 3), 5, "tanh", hidden=6), torch.rand(7, 2, 4, 3)
    rows = torch.cat([x[:, 0], x[:, 1]], 2)
    torch.testing.assert_close(model(x), model.head(last_state(as_torchs(model, "tanh", 6), rows)))


def test_without_a_mask_all_count():
    model, x = RecurrentModel({"x": STEPS["x"]}, 3, hidden=4), torch.randn(5, 6, 3)
    twin = RecurrentModel((6, 3), 3, hidden=4)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model({"x": x}), twin(x))
    named = RecurrentModel({**STEPS, "x": STEPS["x"]}, 3, hidden=4, sequence="x", mask="mask")
    named.load_state_dict(model.state_dict())
    torch.testing.assert_close(named({"x": x, "mask": torch.ones(5, 6)}), twin(x))


@pytest.mark.parametrize("cell", KINDS)
def test_mixed_precision(cell):
    model, x = RecurrentModel((6, 3), 4, cell, hidden=5, layers=2, bidirectional=True), torch.randn(7, 6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x.bfloat16())
        found.float().sum().backward()
    torch.testing.assert_close(found.float(), model(x), rtol=0.05, atol=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (6,)}, "data for model=rnn must be floats .steps, features., images .*, got 'float32 .6,.'"),
        ({"shape": {"x": Entry((6, 3), "int64")}}, "got 'int64 .6, 3.'"),
        ({"shape": {"x": Entry((6,), "float32")}}, "got 'float32 .6,.'"),
        ({"cell": "relu"}, "model.cell must be one of lstm, gru, tanh"),
        ({"hidden": 0}, "model.hidden must be"),
        ({"layers": 0}, "model.layers must be"),
        ({"bidirectional": 1}, "model.bidirectional must be true or false"),
        ({"sequence": "words"}, "model.sequence must be the name of an input, one of x, mask; got words"),
        ({"mask": "kept"}, "model.mask must be the name of an input"),
        (
            {"shape": {"x": STEPS["x"], "z": STEPS["x"]}},
            "model.sequence must name one of the inputs x, z: type model.sequence=NAME",
        ),
        ({"shape": {**STEPS, "age": Entry((), "float32")}, "sequence": "x"}, "has no use for age"),
        ({"shape": {**STEPS, "mask": Entry((5,), "bool")}}, "one number for each place of x, .6,. a sample, got .5,."),
        ({"shape": TOKENS, "vocabulary": 4}, "too small for the token 9: type model.vocabulary=10"),
        ({"shape": {"tokens": Entry((6,), "int64")}}, "type model.vocabulary=N"),
        ({"shape": (1, 8, 8), "vocabulary": 4}, "model.vocabulary=4 is .*, and the data has float32 .1, 8, 8.: leave it out"),
        ({"shape": {"tokens": Entry((6,), "int64", 9, -1)}}, "the smallest is -1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as refusal:
        RecurrentModel(**{"shape": STEPS, "outputs": 2, **arguments})
    assert "\n" not in str(refusal.value)
