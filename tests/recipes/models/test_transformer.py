import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from plugins.inputs import Entry
from recipes.models.transformer import TransformerModel

SHAPE = {"tokens": Entry((6,), "int64", 9, 0), "mask": Entry((6,), "bool")}
SMALL = {"width": 8, "heads": 2, "hidden": 12, "layers": 2}


def inputs(samples=5):
    mask = torch.arange(6) < torch.randint(1, 7, (samples, 1))
    return {"tokens": torch.randint(10, (samples, 6)), "mask": mask}


def as_torchs(model, x):
    """The same of torch's own layers, with the weights of the model."""
    h = model.embedding(x["tokens"]) + model.position.weight
    for layer in model.encoder:
        torchs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True).eval()
        pairs = {
            "self_attn.in_proj_": layer.attention.project,
            "self_attn.out_proj.": layer.attention.out,
            "linear1.": layer.mlp[0],
            "linear2.": layer.mlp[2],
            "norm1.": layer.norm1,
            "norm2.": layer.norm2,
        }
        torchs.load_state_dict(
            {f"{name}{part}": getattr(of, part) for name, of in pairs.items() for part in ("weight", "bias")}
        )
        h = torchs(h, src_key_padding_mask=~x["mask"])
    h = model.norm(h)
    mean = torch.stack([row[kept].mean(0) for row, kept in zip(h, x["mask"], strict=True)])
    return h, model.head(mean)


def test_equals_torchs_layers():
    model, x = TransformerModel(SHAPE, 3, **SMALL).train(), inputs()
    each, expected = as_torchs(model, x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    model.pooling = "none"
    found = model(x)
    assert found.shape == (5, 3, 6)
    kept = x["mask"]
    torch.testing.assert_close(found.transpose(1, 2)[kept], model.head(each)[kept], rtol=1e-4, atol=1e-5)


def test_what_the_mask_leaves_out_changes_nothing():
    model, x = TransformerModel(SHAPE, 3, **SMALL), inputs()
    other = {**x, "tokens": torch.where(x["mask"], x["tokens"], torch.randint(10, (5, 6)))}
    assert torch.equal(model(x), model(other))
    assert torch.equal(model({**x, "mask": x["mask"].long()}), model(x))


def test_a_sample_without_a_token_is_finite():
    model, x = TransformerModel(SHAPE, 3, **SMALL), inputs()
    x["mask"][2] = False
    found = model(x)
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(found[2], model.head.bias)


def test_without_a_mask_all_count():
    model = TransformerModel({"tokens": SHAPE["tokens"]}, 3, **SMALL)
    x = {"tokens": torch.randint(10, (5, 6))}
    twin = TransformerModel(SHAPE, 3, **SMALL)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), twin({**x, "mask": torch.ones(5, 6, dtype=torch.bool)}))
    assert model.embedding.num_embeddings == 10


STEPS = {"features": Entry((6, 4), "float32"), "mask": Entry((6,), "bool")}


def steps(samples=5, length=6):
    mask = torch.arange(length) < torch.randint(1, 7, (samples, 1))
    return {"features": torch.randn(samples, length, 4), "mask": mask}


def test_steps_of_numbers_equal_torchs_layers():
    model, x = TransformerModel(STEPS, 3, **SMALL), steps()
    places = torch.tensor([[p / 10_000 ** (2 * i / 8) for i in range(4)] for p in range(6)])
    twin = TransformerModel(SHAPE, 3, **SMALL)
    twin.embedding = model.embedding
    twin.load_state_dict(model.state_dict(), strict=False)
    twin.position.weight.data[:, 0::2], twin.position.weight.data[:, 1::2] = places.sin(), places.cos()
    _, expected = as_torchs(twin, {"tokens": x["features"], "mask": x["mask"]})
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_steps_of_any_length_and_whatever_the_mask_leaves_out():
    model, x = TransformerModel(STEPS, 3, **SMALL), steps()
    assert model.takes_any_length and not TransformerModel(SHAPE, 3, **SMALL).takes_any_length
    more = {"features": torch.full((5, 9, 4), torch.nan), "mask": torch.zeros(5, 9)}
    more["features"][:, :6], more["mask"][:, :6] = x["features"].masked_fill(~x["mask"][..., None], torch.nan), x["mask"]
    torch.testing.assert_close(model(more), model(x))
    odd = TransformerModel(STEPS, 3, width=7, heads=1, hidden=5, layers=1)
    assert odd(x).shape == (5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 8, 8)}, "a sequence by name, such as data=npz data.input="),
        ({"width": 9}, "a multiple of model.heads=2"),
        ({"layers": 0}, "model.layers must be"),
        ({"pooling": "max"}, "model.pooling must be"),
        ({"tokens": "words"}, "model.tokens must be the name of an input, one of tokens, mask; got words"),
        ({"mask": "kept"}, "model.mask must be the name of an input"),
        (
            {"shape": {**SHAPE, "tokens": Entry((6,), "bool")}},
            r"must be whole numbers \(length,\) or floats \(length, features\)",
        ),
        ({"vocabulary": 4}, "too small for the token 9: type model.vocabulary=10"),
        ({"vocabulary": 0}, "model.vocabulary must be"),
        ({"shape": {"tokens": Entry((6,), "int64")}}, "type model.vocabulary=N"),
        ({"shape": STEPS, "vocabulary": 4}, "model.vocabulary=4 is .*, and the data has float32"),
        ({"shape": {"tokens": Entry((6,), "int64", 9, -1)}}, "the smallest is -1"),
        ({"shape": {**SHAPE, "mask": Entry((5,), "bool")}}, "must have one number for each place of tokens"),
        ({"shape": {**SHAPE, "age": Entry((), "float32")}}, "model.tokens must name one of the inputs tokens, mask, age"),
        ({"shape": {**SHAPE, "age": Entry((), "float32")}, "tokens": "tokens"}, "has no use for age"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        TransformerModel(**{"shape": SHAPE, "outputs": 2, **SMALL, **arguments})
