"""Trainer: the model says with which libraries it was made."""
