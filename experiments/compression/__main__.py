"""How small does a net's file become, stage by stage, at how many errors?

Nets are pruned, lose their units out of use, share few values that train on, and are coded. Each
stage has its row: accuracy, parameters, bytes of the real file, compression factor, latency. Files
are read back, and what was read is evaluated.

    python -m experiments.compression
    python -m experiments.compression --methods=granet+ham --density=0.03 --levels=32,16,8
    python -m experiments.compression --preset=one_shot

The last prunes alone, once, from 50 to 98 % of the weights: surgeons against scores of weights. The
nets of all stages are in the run's folder, as tickets and as files that
`jaxtickets.io.compressed.load_compressed` reads. The results are in
experiments/compression/README.md, with n, spread, device and time.
"""

from collections.abc import Sequence

from absl import flags

from experiments.compression import files, pruning, sharing, times
from experiments.compression.figure import draw_bytes, draw_errors
from experiments.compression.methods import CUTTERS, HAM, ITERATED, MOVERS
from experiments.compression.page import ordered, table
from experiments.compression.presets import DEFAULT, PRESETS
from experiments.compression.settings import CompressSettings, check
from experiments.harness import rows
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.rows import Row
from experiments.harness.session import Session, finish_run, set_up, start_run
from experiments.harness.settings import Choice, Idle, Without
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings

GROUPS = (
    RunSettings(),
    StoreSettings(),
    CompressSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
NOT_SHARED: Choice = {"levels": ((),)}
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "alpha": ({"methods": Without(HAM)},),
    "move_epochs": ({"methods": Without((*MOVERS,))},),
    "retrain_epochs": ({"methods": Without((*CUTTERS,))},),
    "retrain_rate": ({"methods": Without((*CUTTERS,))}, {"retrain_epochs": (0,)}),
    "rounds": ({"methods": Without(ITERATED)},),
    "share_rate": ({"share_epochs": (0,)}, NOT_SHARED),
    **{
        name: (NOT_SHARED,)
        for name in ("quantiser", "codebook", "share_epochs", "positions", "symbols")
    },
}
LEADING = ("stage", "method", "density", "levels", "seed", "trained_accuracy")


def main() -> None:
    """Reads and checks the flags, prunes by each method, shares, writes files, reports."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, net, train, _ = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    axis, problem = set_up(place, parts)
    check(settings, train, problem, net.seeds)
    session = start_run("compression", place, parts, axis, problem)
    dense = dense_nets(session, train, store)

    summary = files.dense_rows(session, dense)
    last: list[Row] = []
    for method in settings.methods:
        pruned = pruning.prune(session, method, settings, train, dense)
        summary += files.measure(session, pruned, settings)
        last += [row for row in pruned if row["stage"] == pruned[-1]["stage"]]
        rows.write_summary(session.folder, summary, *LEADING)
    if settings.levels:
        summary += files.measure(session, last, settings, ("units_removed",))
        summary += _shared(session, last, settings, train)
    if settings.repeats:
        found = times.times(session, last, settings.repeats)
        names = [(row["stage"], row["method"], row["density"]) for row in summary]
        summary = [row | found.get(name, {}) for row, name in zip(summary, names, strict=True)]

    summary = ordered(summary)
    rows.write_summary(session.folder, summary, *LEADING)
    draw_errors(session.folder)
    draw_bytes(session.folder)
    print(table(summary))
    finish_run(session.folder)


def _shared(
    session: Session, last: Sequence[Row], settings: CompressSettings, train: TrainSettings
) -> list[Row]:
    """The rows of the stages of sharing and coding, of all numbers of shared values."""
    made = []
    for levels in settings.levels:
        nets = sharing.share(session, last, int(levels), settings, train)
        for stage in dict.fromkeys(row["stage"] for row in nets):
            mine = [row for row in nets if row["stage"] == stage]
            coded = ("huffman", "coded") if stage == nets[-1]["stage"] else ()
            made += files.measure(session, mine, settings, (stage, *coded))
    return made


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
