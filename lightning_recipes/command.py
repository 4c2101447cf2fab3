"""The command `lightning-recipes train|evaluate|compare|check WORDS`, as an installation makes it."""

from __future__ import annotations

from lightning_recipes.own import expect_own, told


def main() -> None:
    """As `python -m recipes`, once it is sure that Python finds our packages."""
    expect_own()
    with told():
        from recipes.__main__ import main as command
    command()
