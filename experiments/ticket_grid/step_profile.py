"""Where the time of a training goes: input, matrix products, and the rest, from a profiler trace.

Each operation of the compiled program is classified by what it computes: one that holds a matrix
product or a convolution is a product; another that touches 8-bit images is input (drawing a batch,
augmentation, normalisation); all others (batch norm, activations, patches of images,
masks, the optimiser) are the rest. The time that no operation was running is idle.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

INPUT, PRODUCTS, REST, IDLE = "input", "products", "rest", "idle"
PARTS = (INPUT, PRODUCTS, REST, IDLE)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(r"calls=%?([\w.-]+)")
_PRODUCT = re.compile(r"\b(dot|convolution|gemm|cudnn\w*|cublas\w*|matmul)\b|\$(conv|matmul|gemm)")
CONTROL = ("while", "conditional", "call")
"""Operations whose time is that of the operations inside."""


def classified(text: str) -> dict[str, str]:
    """Operation -> part of the time, for each operation of a program that is no control flow.

    Args:
      text: the compiled program, `Compiled.as_text()`.
    """
    bodies: dict[str, list[str]] = {}
    operations: dict[str, tuple[str, str]] = {}
    inside = ""
    for line in map(str.strip, text.splitlines()):
        if found := _COMPUTATION.match(line):
            inside = found[1]
        elif found := _INSTRUCTION.match(line):
            code = line.partition("metadata=")[0]
            bodies.setdefault(inside, []).append(code)
            operations[found[1]] = found[3], code
    parts = {}
    for name, (kind, code) in operations.items():
        called = _CALLED.search(code)
        whole = "\n".join([code, *(bodies.get(called[1], ()) if called else ())])
        if kind not in CONTROL:
            parts[name] = _part(whole)
    return parts


def _part(code: str) -> str:
    if _PRODUCT.search(code):
        return PRODUCTS
    return INPUT if "u8[" in code else REST


def shares(
    events: Sequence[tuple[str, float]], parts: Mapping[str, str], seconds: float
) -> list[dict[str, Any]]:
    """A row for each part: its seconds, and its share of the whole time.

    Args:
      events: operation and seconds, of one device.
      parts: see `classified`. Operations that it doesn't know are left out.
      seconds: the time of the whole.
    """
    spent = dict.fromkeys(PARTS, 0.0)
    for name, time in events:
        if name in parts:
            spent[parts[name]] += time
    spent[IDLE] = max(0.0, seconds - sum(spent.values()))
    whole = sum(spent.values())
    return [
        {"part": part, "seconds": round(time, 6), "share": round(time / whole, 3)}
        for part, time in spent.items()
    ]


def profile(compiled: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """The rows of `shares` for a call of a compiled program on one device.

    Args:
      compiled: the program, as `jax.stages.Compiled`.
      call: executes it once. A first call warms up.
    """
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as home:
        with jax.profiler.trace(home):
            jax.block_until_ready(call())
        (path,) = Path(home).rglob("*.xplane.pb")
        found = ProfileData.from_file(str(path))
        timed = [
            (dict(event.stats).get("hlo_op"), event.start_ns, event.duration_ns)
            for plane in found.planes
            for line in plane.lines
            for event in line.events
        ]
    events = [(str(name), start, length) for name, start, length in timed if name and length]
    start = min((start for _, start, _ in events), default=0.0)
    end = max((start + length for _, start, length in events), default=0.0)
    lengths = [(name, length / 1e9) for name, _, length in events]
    return shares(lengths, classified(compiled.as_text()), (end - start) / 1e9)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `shares` as text."""
    lines = [f"{'where the time goes':40}{'s':>9}{'share':>10}"]
    lines += [f"{row['part']:40}{row['seconds']:>9.3f}{row['share']:>10.2f}" for row in rows]
    return "\n".join(lines)
