"""ServedModel: the model that is served now, as the baseline of the next."""
