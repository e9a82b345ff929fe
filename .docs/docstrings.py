"""Docstrings as reStructuredText: code in single backticks, indented code, nothing else marked."""

import re

SPAN = re.compile(r"(`[^`]+`)")
MARKS = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")


def as_rst(app, what, name, obj, options, lines):
    """Changes a docstring's lines in place, before its sections are read."""
    lines[:] = indented_code(spans("\n".join(lines)).split("\n"), what == "module")


def spans(text):
    """Writes code between backticks as a literal, and escapes marks outside of it."""
    return "".join(_literal(part) if part[:1] == "`" else _plain(part) for part in _parts(text))


def _parts(text):
    return [part for part in SPAN.split(text) if part]


def _literal(part):
    # a literal may touch a word, as in float`[n]`, only across an escaped space
    return rf"\ ``{' '.join(part.strip('`').split())}``\ "


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
