"""The error that preparation reports to its user."""


class PreparationError(Exception):
    """Something in the configuration or the corpus prevents preparation; the message says what and what to do."""
