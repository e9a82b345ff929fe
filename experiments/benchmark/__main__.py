"""How fast is the code, and how close is it to the limits of this machine?

Every speed is a ratio of two times measured in one run. Annealing and masked training are compared
with the machine's float32 matrix products, the convolution with `lax.conv` under `vmap`, and nets
with half of their units with the whole nets, training steps that skip zeros with masked dense ones.
Photographs are decoded by one thread and by two, and steps of nets for photographs timed.
If PyTorch is installed, annealing and training are
compared with the same work in PyTorch on the CPU (`torch_rival.py`), called in turns with ours.
Images are random bytes, since their values don't change the speed.

    python -m experiments.benchmark --json=benchmark.json --figure=benchmark.png

Two CPU cores take about twenty minutes: a third for `lax.conv`, a third for PyTorch. `--only`
measures some of the groups. The bars assume a machine without other load.

The time of a row has three parts: matrix products at the machine's rate, memory traffic at the
memory's rate, and the rest, called overhead. The largest part bounds the row. Memory traffic counts
only the bytes that every implementation must move: each step reads or writes its weights, masks,
gradients, moments and images once (`workloads.Work`). Products and traffic can add up to more than
1, since they may overlap and caches are faster than memory. Activations aren't counted, so their
traffic is part of the overhead.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from experiments.benchmark import (
    big_nets,
    packed_steps,
    photographs,
    processes,
    races,
    shrunk_nets,
    speeds,
    torch_rival,
)
from experiments.benchmark.figure import draw_benchmark
from experiments.benchmark.measured import Row
from experiments.benchmark.outputs import place
from experiments.harness import setup
from experiments.harness.main import run_main
from experiments.harness.settings import choose
from jaxtickets.io.errors import UserError

RIVAL = "torch"
"""The group of rows that needs PyTorch."""
GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "startup": processes.startup,
    "compilation": processes.compiled,
    "annealing": speeds.annealing,
    "differences": speeds.differences,
    "cost": speeds.cost,
    "training": speeds.training,
    "level": speeds.levels,
    "convolution": speeds.convolutions,
    "shrunk": shrunk_nets.rows,
    "sparse_training": packed_steps.rows,
    "photographs": photographs.rows,
    "big_nets": lambda: big_nets.rows(*big_nets.cases(flags.FLAGS.nets, flags.FLAGS.pixels)),
    RIVAL: races.rows,
    "memory": processes.memory,
}


def wanted(only: Sequence[str], rival: bool) -> list[str]:
    """The groups to measure: those of `only`, or all that can be measured.

    Raises:
      UserError: a group is unknown, or needs PyTorch, which isn't installed.
    """
    for name in only:
        choose("group", name, GROUPS)
    if RIVAL in only and not rival:
        raise UserError("--only=torch: PyTorch is not installed (pip install torch)")
    return list(only) or [name for name in GROUPS if rival or name != RIVAL]


def main() -> None:
    """Measures, prints the table, and writes it as JSON and as a figure if flags ask for them."""
    rival = torch_rival.installed()
    names = wanted(flags.FLAGS.only, rival)
    table = place("json", flags.FLAGS.json)
    figure = place("figure", flags.FLAGS.figure)
    big_nets.cases(flags.FLAGS.nets, flags.FLAGS.pixels)
    setup.configure(flags.FLAGS.devices or None)
    print(setup.describe_devices())
    if not rival:
        print("PyTorch is not installed: what needs it is left out")
    print(_line("", "", "ratio", "bar", "products", "memory", "bound by"))
    found = []
    for name, rows in (("machine", speeds.machine), *((name, GROUPS[name]) for name in names)):
        for row in rows():
            found.append({"group": name, **row._asdict()})
            _print(row)
    if table:
        table.write_text(json.dumps(found, indent=2))
    if figure:
        draw_benchmark(found, figure)


def _print(row: Row) -> None:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} {row.against}"
    bar = "" if row.bar is None else f"{row.bar:.3g} {'holds' if row.holds else 'MISSED'}"
    shares = ("" if x is None else f"{x:.2f}" for x in (row.products, row.memory))
    print(
        _line(row.name, f"{row.value:.4g} {row.unit}", ratio, bar, *shares, row.bound), flush=True
    )


def _line(*cells: str) -> str:
    widths = (54, 22, 58, 12, 10, 8, 0)
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    flags.DEFINE_string("json", "", "file to which the table is written as JSON; empty: none")
    flags.DEFINE_string("figure", "", "file for a chart of the ratios, such as a .png; empty: none")
    flags.DEFINE_list("only", [], f"groups of rows to measure: {', '.join(GROUPS)}")
    flags.DEFINE_list(
        "nets", ["mobilenet_v2", "resnet18"], f"nets of big_nets: {', '.join(big_nets.NETS)}"
    )
    flags.DEFINE_list("pixels", ["64"], "sides of the images of big_nets, in pixels")
    flags.DEFINE_integer("devices", 0, "number of virtual CPU devices; 0: one per core")
    run_main(main)
