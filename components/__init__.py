"""The custom TFX components, a folder each."""
