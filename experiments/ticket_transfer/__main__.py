"""Does a ticket win on another data set, with another optimiser, from another initialisation?

Tickets are found by iterative magnitude pruning with rewinding on each data set with each
optimiser. Each is then trained on every data set with every optimiser, under a new output layer,
beside the same ticket shuffled within its layers, a random mask, and the target's own ticket. Masks
also go to another seed's initialisation: as they are, with their units brought to the places of
the units that they match, and with the signs of their trained weights. Morcos et al., "One ticket
to win them all", 2019.

    python -m experiments.ticket_transfer
    python -m experiments.ticket_transfer --datasets=mnist5k,mnist5k:noisy --optimizers=adam \
--rates=0.001
    python -m experiments.ticket_transfer --preset=mnist --data_dir=FOLDER

The results are in experiments/ticket_transfer/README.md, with n, spread, device and time.
"""

from absl import flags

from experiments.harness import records, rows, setup
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.imp_plan import ImpSettings
from experiments.harness.main import run_main
from experiments.harness.rows import Row
from experiments.harness.session import finish_run, session_in
from experiments.harness.settings import Except, Idle
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.ticket_transfer import figure, page, targets
from experiments.ticket_transfer.presets import DEFAULT, PRESETS
from experiments.ticket_transfer.settings import TransferSettings, conditions
from experiments.ticket_transfer.sources import find_tickets
from jaxtickets import runs

GROUPS = (
    RunSettings(),
    TransferSettings(),
    ImpSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "dataset": ({"datasets": Except(((),))},),
    "optimizer": ({"optimizers": Except(((),))},),
    "learning_rate": ({"rates": Except(((),))},),
    "output_rate": ({"prune_output": (False,)},),
    "match_images": ({"across": (False,)},),
}
LEADING = ("method", "source", "target", "density", "seed", "untrained_accuracy")


def main() -> None:
    """Reads and checks the flags, finds all tickets, trains each on every target, reports."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, pruning, net, train, batch = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    found = conditions(settings, pruning, net, train, place, batch.precision)
    run = records.open_run_of_flags("ticket_transfer", place, parts, axis)

    sessions, sources = {}, {}
    for condition in found:
        folder = run.folder / condition.label.replace("/", "-").replace(":", "-")
        folder.mkdir(exist_ok=True)
        session = session_in(folder, place, axis, condition.problem, net)
        sessions[condition.label] = session
        sources[condition.label] = find_tickets(session, condition)

    summary: list[Row] = []
    images = settings.match_images if settings.across else 0
    for condition in found:
        summary += targets.dense_rows(condition.label, sources[condition.label])
        session = sessions[condition.label]
        summary += targets.train_all_tickets(session, condition, sources, images)
        rows.write_summary(run.folder, summary, *LEADING)

    figure.draw_transfer(run.folder)
    print(page.table(summary))
    finish_run(run.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
