"""Evaluator: the evaluation says its headline."""
