"""Selections of options, and a check of one of them."""

from recipes.check.outcome import Wrong


def told(names, check, *given):
    """Make a check; what is wrong is told with the names of the selection."""
    try:
        check(*given)
    except Wrong as error:
        raise Wrong(f"{', '.join(names)}: {error}") from error
