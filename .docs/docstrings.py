"""Docstrings as reStructuredText: code in single backticks, indented code, nothing else marked."""

import re

SPAN = re.compile(r"(`[^`]+`)")
VARIABLES = ("data", "attribute")
MARKS = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")


COLON = "\ue000"
"""Stands for the colons of a variable's docstring, which would otherwise be split at the first."""


def as_rst(app, what, name, obj, options, lines):
    """Changes a docstring's lines in place, before its sections are read."""
    text = spans("\n".join(lines))
    if what in VARIABLES:
        text = text.replace(":", COLON)
    lines[:] = indented_code(text.split("\n"), what == "module")


def with_colons(app, what, name, obj, options, lines):
    """Gives a variable's docstring its colons back, after its sections were read."""
    if what in VARIABLES:
        lines[:] = [line.replace(COLON, ":") for line in lines]


def spans(text):
    """Writes code between backticks as a literal, and escapes marks outside of it."""
    parts = ["", *SPAN.split(text), ""]
    return "".join(
        _literal(part, before=parts[i][-1:], after=parts[i + 2][:1]) if i % 2 else _plain(part)
        for i, part in enumerate(parts[1:-1])
    )


def _literal(part, before, after):
    # a literal may touch a word, as in float`[n]`, only across an escaped space
    left, right = (r"\ " if char.strip() else "" for char in (before, after))
    return f"{left}``{' '.join(part.strip('`').split())}``{right}"


def _plain(part):
    return MARKS.sub(lambda mark: "\\" + mark.group(), part)


def indented_code(lines, everywhere):
    """Marks paragraphs that are indented by four as code; elsewhere they are of a section.

    Args:
      lines: of a docstring.
      everywhere: whether it is a module's, which has no sections.
    """
    found, inside = [], False
    for line in lines:
        starts = line.startswith("    ") and (not found or not found[-1].strip())
        if everywhere and starts and not inside:
            found += ["::", ""]
            inside = True
        elif inside and line.strip() and not line.startswith(" "):
            inside = False
        found.append(line)
    return found


def skip(app, what, name, obj, skip, options):
    """Leaves out the fields of records, which their class's docstring describes."""
    return True if type(obj).__name__ == "_tuplegetter" else None
