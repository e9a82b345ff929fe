"""What a data set that can't be loaded raises."""


class DataError(ValueError):
    """A data set is unknown, missing, not prepared or damaged; one line that says what to do."""


def reason(error: Exception) -> str:
    """The first line of an error's message, at most 160 characters, or else its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
