"""The errors of a data set or an image that cannot be loaded."""


class DataError(ValueError):
    """A data set is unknown, missing, not prepared or damaged; one line that gives a remedy."""


class ImageError(DataError):
    """An image is corrupt, or of a kind that has no RGB form."""


def reason(error: Exception) -> str:
    """The first line of an error's message, at most 160 characters, or the name of its type.

    >>> reason(ValueError("no room is left")), reason(ValueError())
    ('no room is left', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
