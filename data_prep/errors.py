"""The error that preparation reports to its user."""


class PreparationError(Exception):
    """The settings or the corpus prevent preparation; the message says how and what to do."""
