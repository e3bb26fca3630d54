"""Lets Beam ship this project to its workers (`--setup_file=setup.py`); everything else is in pyproject.toml."""

from setuptools import setup

setup()
