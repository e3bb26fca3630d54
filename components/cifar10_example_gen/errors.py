"""The one exception for data that cannot be used."""


class DataError(ValueError):
    """The data is not what it has to be. The message names file and record, what was expected and what to do."""
