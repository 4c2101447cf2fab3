"""Seeds: a stream of random numbers for each owner."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *keys: str | int) -> int:
    """A seed of 63 bits for the owner named by `keys`, so that everything random has a stream of its own."""
    text = "/".join(map(str, (seed, *keys)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
