"""User errors: one message, no traceback, exit code 2."""


class SpectroError(Exception):
    """Base class of errors caused by user input; the message names the input, the value and what is allowed."""


class ConfigError(SpectroError):
    """The configuration is invalid; the message names the dotted key."""


class DataError(SpectroError):
    """The data set is unusable; the message lists every problem."""


class ModelError(SpectroError):
    """A saved model cannot be loaded; the message names the file."""
