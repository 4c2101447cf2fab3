"""Finders: short trainings that suggest a learning rate or a batch size."""
