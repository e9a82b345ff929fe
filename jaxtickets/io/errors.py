"""The errors of files and names that a user can put right. Nothing here imports JAX."""


class UserError(Exception):
    """Something that the user can put right; the message is one line that says how."""
