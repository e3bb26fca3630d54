"""Serving a pushed model: clients, the local model server, TensorFlow Serving's configuration."""

import surroundings

surroundings.decide()
