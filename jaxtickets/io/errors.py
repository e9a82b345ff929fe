"""The errors that a user can correct. Nothing here imports JAX."""


class UserError(Exception):
    """An error that the user can correct; the message is one line that says how."""
