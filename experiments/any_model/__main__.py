"""Can a net that somebody brings be traced, masked, searched, trained, and cut?

A small net of each structure (concatenations, groups, norms, attention, recurrence, scans, several
inputs; in Flax Linen, in Flax NNX, and as a plain function) gets random weights. Its channel graph
is traced, half of the units of each group are cut at random, and the small net's outputs are
compared with those of the masked one. A net of each kind then goes through every family of the
library. Nothing is trained.

    python -m experiments.any_model
    python -m experiments.any_model --structures=transformer,LSTM

The results are in experiments/any_model/README.md, with device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.any_model import families, figure, measures
from experiments.any_model.page import table
from experiments.any_model.structures import STRUCTURES
from experiments.harness import records, rows, setup
from experiments.harness.flags import RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run
from experiments.harness.settings import MOST_SEED, choose, option
from jaxtickets import runs

SMOKE: dict[str, Any] = {"structures": ("plain layers",), "strangers": ("plain layers",)}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is cut and compared. Each field is also a flag of the same name."""

    structures: tuple = option(tuple(STRUCTURES), f"structures: {', '.join(STRUCTURES)}")
    strangers: tuple = option(families.STRANGERS, "structures that go through all families")
    share: float = option(0.5, "share of the units of each group that stay", above=0, below=1)
    batch: int = option(64, "examples of a timed forward pass", least=1, most=100_000)
    seed: int = option(0, "seed of weights, units and inputs", least=0, most=MOST_SEED)


GROUPS = (RunSettings(), Question())


def main() -> None:
    """Reads and checks the flags, cuts all structures, checks the families, and prints both."""
    place, question = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    setup.start(place)
    for name in (*question.structures, *question.strangers):
        choose("structure", name, tuple(STRUCTURES))
    run = records.open_run_of_flags("any_model", place, [question], runs.axis())
    known = rows.read_metrics(run.folder)
    done = [_plain(row) for row in known if row["phase"] == "structures"]
    checked = [_plain(row) for row in known if row["phase"] == "families"]
    for name in question.structures:
        if name not in [row["structure"] for row in done]:
            row = measures.measure(
                name,
                STRUCTURES[name](),
                share=question.share,
                batch=question.batch,
                seed=question.seed,
            )
            rows.append_metrics(run.folder, {"phase": "structures", **row})
            done.append(row)
            print(f"{name}: {row['trace_ms']:.0f} ms", flush=True)
    for name in question.strangers:
        if name not in [row["structure"] for row in checked]:
            found = families.check(name, STRUCTURES[name]())
            for row in found:
                rows.append_metrics(run.folder, {"phase": "families", **row})
            checked += found
            print(f"{name}: all families", flush=True)
    rows.write_summary(run.folder, done, "structure", "kind")
    rows.write_csv(run.folder / "families.csv", checked)
    figure.draw_shares(run.folder)
    print(table(done, checked))
    finish_run(run.folder)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "phase"}


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
