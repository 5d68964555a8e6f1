"""The errors that a user can mend: one message, no traceback, exit code 2."""


class SpectroError(Exception):
    """Something in the user's hands is wrong; the message names it, what was found and what is allowed."""


class ConfigError(SpectroError):
    """The configuration is not valid; the message names the dotted key."""


class DataError(SpectroError):
    """The data set is not usable; the message lists every problem found."""


class ModelError(SpectroError):
    """A saved model cannot be loaded; the message names the file."""
