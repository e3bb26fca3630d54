"""Apache Flink on this machine, as an engine for Beam: `python -m pipeline.flink --help`, or `make flink`.

A standalone cluster: a job manager, task managers, and Beam's job server, each a process of its own on 127.0.0.1. The
task managers start the Python workers. Imports neither TFX nor TensorFlow.
"""
