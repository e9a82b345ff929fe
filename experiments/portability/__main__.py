"""Does a ticket compute the same outside of JAX, in every net of the registry?

Each net, at its published size, gets random weights, random batch statistics, a random mask and
random images. It is written as an ONNX graph, dense, masked, and with half of the units removed,
which onnxruntime runs; as a program of `jax.export`; and as a PyTorch state dict, from which it is
read again. The largest differences between the logits are recorded. Nothing is trained.

    python -m experiments.portability
    python -m experiments.portability --models=lenet5,resnet20

The results are in experiments/portability/README.md, with device and time.
"""

import dataclasses
import importlib.util
from typing import Any

from absl import flags

from experiments.harness import records, rows, setup
from experiments.harness.flags import RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run
from experiments.harness.settings import MOST_SEED, choose, option
from experiments.portability import figure, measures
from experiments.portability.page import table
from jaxtickets import nets, runs

NEEDED = ("onnx", "onnxruntime")
SMOKE: dict[str, Any] = {"models": ("lenet300_100", "lenet5_29k")}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is compared. Each field is also a flag of the same name."""

    models: tuple = option(nets.names(), f"network architectures: {', '.join(nets.names())}")
    density: float = option(0.1, "density of the random masks", above=0, most=1)
    units: float = option(0.5, "share of the units that shrinking keeps", above=0, below=1)
    images: int = option(4, "number of images", least=1, most=1000)
    seed: int = option(0, "seed of weights, masks and images", least=0, most=MOST_SEED)


GROUPS = (RunSettings(), Question())


def main() -> None:
    """Reads and checks the flags, exports all nets, draws, and prints the differences."""
    place, question = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    setup.start(place)
    for model in question.models:
        choose("model", model, nets.names())
    run = records.open_run_of_flags("portability", place, [question], runs.axis())
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} not installed: ONNX is left out")
    done = [{k: v for k, v in row.items() if k != "phase"} for row in rows.read_metrics(run.folder)]
    for model in question.models:
        if model not in [row["model"] for row in done]:
            row = measures.measure(
                model,
                density=question.density,
                units=question.units,
                images=question.images,
                seed=question.seed,
                onnx=not missing,
            )
            rows.append_metrics(run.folder, {"phase": "nets", **row})
            done.append(row)
            print(f"{model}: {row['seconds']:.1f} s", flush=True)
    rows.write_summary(run.folder, done, "model", "parameters")
    figure.draw_differences(run.folder)
    print(table(done))
    finish_run(run.folder)


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
