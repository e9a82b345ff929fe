"""Builds the documentation: one command, no network, no warnings.

    pip install -e '.[docs]'
    python .docs/build.py

The site is written to `build/docs/`. Its pages are the README, the experiments' pages, the
notebooks, the page of capabilities that the code's tables write, and a page for each public module
from its docstrings. All of them are first put together in `build/docs-source/`.
"""

import argparse
import importlib
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from experiments.harness import capabilities, notebooks, pages

INDEX = """# jaxtickets

```{toctree}
:maxdepth: 1

README
capabilities
experiments/notebooks/README
experiments/README
api/jaxtickets
```
"""


def main():
    """Puts the pages together and has Sphinx build them; returns its exit status."""
    from sphinx.cmd.build import main as sphinx

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    out = parser.parse_args().out
    source = out.with_name(out.name + "-source")
    shutil.rmtree(source, ignore_errors=True)
    write(source)
    cache = out.with_name(out.name + "-cache")
    words = ["-W", "--keep-going", "-q", "-c", str(ROOT / ".docs"), "-d", str(cache)]
    status = sphinx([*words, str(source), str(out)])
    if not status:
        print(f"written: {out / 'index.html'}")
    return status


def write(source):
    """Writes all pages into the folder `source`."""
    for page in pages.pages():
        copy(page, source)
        for place in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            if (linked := (page.parent / place).resolve()).is_file():  # figures, rows, source
                copy(linked, source)
    for notebook in notebooks.sources():
        copy(notebook.with_suffix(".ipynb"), source)
    for page in (source / "experiments" / "README.md", source / "experiments/notebooks/README.md"):
        add_contents(page)
    (source / "index.md").write_text(INDEX, encoding="utf-8")
    (source / "capabilities.md").write_text(capabilities.page(to_page), encoding="utf-8")
    (source / "api").mkdir()
    for module in capabilities.modules():
        (source / "api" / f"{module}.md").write_text(api(module), encoding="utf-8")


def copy(file, source):
    """Copies a file of the checkout to the same place below `source`."""
    target = source / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def add_contents(page):
    """Puts the pages of the folders, or the notebooks, below a page."""
    below = [*page.parent.glob("*.ipynb"), *page.parent.glob("*/README.md")]
    names = sorted(path.relative_to(page.parent).with_suffix("").as_posix() for path in below)
    names = [name for name in names if name != "notebooks/README"]  # the index has it
    text = page.read_text(encoding="utf-8")
    contents = "\n".join(["", "```{toctree}", ":hidden:", "", *names, "```", ""])
    page.write_text(text + contents, encoding="utf-8")


def to_page(entry):
    """A link from the page of capabilities to the entry's own page."""
    if entry.page:
        return f"[`{entry.name}`]({entry.page})"
    if entry.member:
        return f"{{py:obj}}`{entry.name} <{entry.module}.{entry.member}>`"
    return f"[`{entry.name}`](api/{entry.module}.md)" if entry.module else f"`{entry.name}`"


def api(module):
    """The page of a module: its docstring, its public members, and the modules in it."""
    prefix = f"{module}."
    inner = [name for name in capabilities.modules(module) if name.startswith(prefix)]
    inner = [name for name in inner if "." not in name.removeprefix(prefix)]
    contents = "\n".join(["```{toctree}", ":maxdepth: 1", "", *inner, "```"]) if inner else ""
    own = getattr(importlib.import_module(module), "__all__", None) is None or not inner
    members = "\n   :members:" if own else ""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}{members}\n```\n\n{contents}\n"


if __name__ == "__main__":
    sys.exit(main())
