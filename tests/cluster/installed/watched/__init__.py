"""A package with one technique, as third parties install them; by it the tests see and hold the runs on a cluster."""
