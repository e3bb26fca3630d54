"""The custom TFX components, a folder each."""

import surroundings

surroundings.decide()
