"""Techniques of somebody's own, one of each kind, as options beside those of lightning-recipes."""
