"""Lengths of time, and a run that ends by one."""

import random
from datetime import timedelta

import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from recipes.config.duration import seconds_of, twice


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10min", 600),
        ("2h", 7200),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("10 min", 600),
        ("0.5h", 1800),
        ("1d", 86400),
        ("2days", 172800),
        ("00:10:00", 600),
        ("36:00:00", 129600),
        ("01:00:00:30", 86430),
    ],
)
def test_seconds(text, seconds):
    assert seconds_of("max_time", text) == seconds
    check(Catalogue(), [f"max_time={text}" if " " not in text else f"max_time='{text}'"])


def test_any_time_written_in_both_ways():
    draw = random.Random()
    for _ in range(100):
        days, hours, minutes, seconds = draw.randrange(9), draw.randrange(24), draw.randrange(60), draw.randrange(1, 60)
        expected = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        assert seconds_of("max_time", f"{days}d{hours}h{minutes}m{seconds}s") == expected
        assert seconds_of("max_time", f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}") == expected
        assert seconds_of("max_time", twice("max_time", f"{hours}h{seconds}s")) == 2 * (3600 * hours + seconds)


@pytest.mark.parametrize(
    "value",
    [
        "600",
        "1.5",
        "abc",
        "0s",
        "-1s",
        "1:2",
        "5m30",
        "10minx",
        "min",
        "999999d",
        "[10min]",
        "true",
        ".inf",
        "1h-30m",
        "10,5min",
    ],
)
def test_what_is_no_length_of_time(value):
    with pytest.raises(RecipeError) as error:
        check(Catalogue(), [f"max_time={value}"])
    assert "max_time" in str(error.value)


def test_a_bare_number_has_no_unit():
    with pytest.raises(RecipeError, match="did you mean max_time=600s, or max_time=600min"):
        seconds_of("max_time", 600)
