import io

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from plugins.base import RecipeError
from recipes.data import encoding, memory
from recipes.data.encoding import as_plain, encode, from_plain, learn

NAMES = ["size", "town", "weight", "colour"]


def drawn(rows, seed, words="abcdef"):
    """A table of two columns of numbers and two of words with holes, as objects for scikit-learn and as places for us."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 6, (rows, 2)) * rng.choice([1.0, 0.25], (rows, 1))
    numbers[rng.random((rows, 2)) < 0.15] = np.nan
    texts = rng.choice(list(words), (rows, 2)).astype(object)
    texts[rng.random((rows, 2)) < 0.15] = None
    known = [sorted({*texts[:, column]} - {None}) for column in (0, 1)]
    places = np.array(
        [[np.nan if text is None else known[column].index(text) for column, text in enumerate(row)] for row in texts]
    )
    x = np.stack([numbers[:, 0], places[:, 0], numbers[:, 1], places[:, 1]], 1)
    return numbers, texts, x, [None, known[0], None, known[1]]


@pytest.mark.parametrize("impute", ["mean", "median", "most_frequent"])
@pytest.mark.parametrize("seed", range(8))
def test_features_are_those_of_scikit_learn(impute, seed):
    """Of other rows, too, with other words, which are in other places there."""
    numbers, texts, x, words = drawn(60, seed, "acdf")
    columns = learn(x, NAMES, words, impute, "own.csv")
    filled = SimpleImputer(strategy=impute).fit(numbers)
    common = SimpleImputer(strategy="most_frequent", missing_values=None).fit(texts)
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(common.transform(texts))
    for rows, other in ((60, seed), (40, seed + 100)):
        numbers, texts, x, words = drawn(rows, other, "acdf" if other == seed else "abcdef")
        expected = np.concatenate([filled.transform(numbers), one_hot.transform(common.transform(texts))], 1)
        found = encode(x, words, columns, "ignore", np.arange(rows) + 2, "own.csv")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_category_that_no_training_row_has():
    x = np.array([[0.0], [2.0], [0.0], [1.0]])
    words = [["a", "b", "c"]]
    columns = learn(x[:3], ["town"], words, None, "own.csv")
    assert columns[0].categories == ("a", "c")
    np.testing.assert_array_equal(
        encode(x, words, columns, "ignore", np.arange(2, 6), "own.csv"), [[1, 0], [0, 1], [1, 0], [0, 0]]
    )
    with pytest.raises(RecipeError, match="own.csv: column town, line 5: no training row holds b; data.unseen=ignore"):
        encode(x, words, columns, "error", np.arange(2, 6), "own.csv")
    with pytest.raises(RecipeError, match="column town has a hole in line 3, and nothing fills it"):
        encode(np.array([[0.0], [np.nan]]), words, columns, "error", np.arange(2, 4), "own.csv")


def test_holes_that_training_did_not_have_are_filled_by_it():
    columns = learn(np.array([[1.0, 0], [4.0, 1], [10.0, 1]]), ["a", "b"], [None, ["x", "y"]], "median", "own.csv")
    found = encode(np.full((1, 2), np.nan), [None, []], columns, "error", np.array([2]), "own.csv")
    np.testing.assert_array_equal(found, [[4, 0, 1]])


def test_a_column_of_holes_in_the_training_rows_is_refused():
    for words in (None, ["x"]):
        with pytest.raises(RecipeError, match=r"own.csv: column b has no value in any of the 2 training rows.*data.drop=\[b\]"):
            learn(np.array([[1, np.nan], [2, np.nan]]), ["a", "b"], [None, words], "mean", "own.csv")


def test_too_many_features_are_refused(monkeypatch):
    monkeypatch.setattr(encoding, "MOST_FEATURES", 4)
    x = np.array([[number, number % 2, number] for number in range(4)], dtype=float)
    words = [None, ["a", "b"], ["p", "q", "r", "s"]]
    with pytest.raises(
        RecipeError, match=r"become 7 features, .*most of them, 4, are the categories of name: .*data.drop=\[name\]"
    ):
        learn(x, ["size", "town", "name"], words, None, "own.csv")


def test_features_that_do_not_fit_into_the_memory_are_refused(monkeypatch):
    x = np.array([[number, number % 2] for number in range(4)], dtype=float)
    columns = learn(x, ["size", "town"], [None, ["a", "b"]], None, "own.csv")
    monkeypatch.setattr(memory, "available", lambda: 4.0 * 4 * 3 - 1)
    with pytest.raises(
        RecipeError, match=r"4 rows of 3 features take 0.0 GiB, .*most features, 2, are of town: .*data.drop=\[town\]"
    ):
        encode(x, [None, ["a", "b"]], columns, "error", np.arange(4), "own.csv")
    monkeypatch.setattr(memory, "available", lambda: 4.0 * 4 * 3)
    assert encode(x, [None, ["a", "b"]], columns, "error", np.arange(4), "own.csv").shape == (4, 3)
    monkeypatch.setattr(encoding, "world", lambda: 2)  # each of which has them
    with pytest.raises(RecipeError, match="for which the memory is too small"):
        encode(x, [None, ["a", "b"]], columns, "error", np.arange(4), "own.csv")


def test_what_was_learned_goes_through_a_checkpoint():
    _, _, x, words = drawn(60, 0)
    columns = learn(x, NAMES, words, "mean", "own.csv")
    file = io.BytesIO()
    torch.save(as_plain(columns), file)
    file.seek(0)
    assert from_plain(torch.load(file, weights_only=True)) == columns
    for broken in ({"kind": "none"}, {"name": 3}, {"categories": [1]}, {"fill": "x"}, {"fill": [1.0]}):
        with pytest.raises((TypeError, ValueError, KeyError)):
            from_plain([as_plain(columns)[0] | broken])
    with pytest.raises(KeyError):
        from_plain([{"name": "a"}])
