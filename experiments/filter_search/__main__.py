"""Which filters are worth training?

This is the second half of the annealing thesis. Masks with a bit for each filter or neuron are
annealed over the initial weights, or over those after some epochs. The units that are off are
removed, and the small net is trained from the initial weights. With --granularity=unit_fields the
search has a potential for each layer and unit in place of a bit, so that it can meet a budget of
multiply-adds and choose the layers that get them. The trainability energy is the held-out loss
after a few training steps.

At the same shares the found units are compared with random units, with the units of largest mean
|w| after dense training, and with those of largest mean trained weight times the sign of the mean
initial weight. The found units shuffled within layers show whether the search found units or only
layer counts.

    python -m experiments.filter_search
    python -m experiments.filter_search --granularity=unit_fields --budget=0.2,0.05
    python -m experiments.filter_search --model=cnn960 --dataset=cifar10 --preset=thesis

The results are in experiments/filter_search/README.md, with n, spread, device and time.
"""

from typing import Any

from absl import flags

from experiments.filter_search import unit_search
from experiments.filter_search.page import table
from experiments.filter_search.unit_search import INIT, Question
from experiments.harness import filter_cuts, soft_filter_pruning, structured_runs
from experiments.harness import structured_figures as figures
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.filter_cuts import AfterSettings, CutSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, preset_of, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.thesis_annealing import CNN960_TRAINING
from experiments.harness.training_settings import NetSettings, TrainSettings

SMOKE: dict[str, Any] = {
    "model": "lenet5_29k",
    "widths": "4,6,20",
    "train_images": 1000,
    "seeds": 1,
    "methods": ("random",),
    "rates": (0.5,),
    "ranking": "by_layer",
    "weights_from": (INIT, "1"),
    "energies": ("fixed",),
    "chains": 1,
    "search_steps": 20,
    "search_train_steps": 2,
    "after": ("rewind",),
    "repeats": 10,
    "epochs": 1,
}
THESIS: dict[str, Any] = {
    **CNN960_TRAINING,
    "model": "cnn960",
    "rates": (0.5, 0.4, 0.3, 0.2),
    "methods": ("random", "mean_abs", "sign_mean"),
    "ranking": "over_layers",
    "weights_from": (INIT, "90"),
    "chains": 1,
    "search_steps": 8200,
    "search_images": 1024,
    "search": "thesis",
}
PRESETS = {"": {}, "smoke": SMOKE, "thesis": THESIS}
GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    CutSettings(methods=("random", "mean_abs", "sign_mean"), ranking="over_layers"),
    AfterSettings(after=("rewind",)),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains dense nets, searches, cuts, trains, measures, draws."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, cut, after, net, train, _ = parts
    unit_search.check_question(question, cut)
    axis, problem = set_up(place, parts)
    plan = filter_cuts.plan_cuts(cut, after, train, problem)
    problem = problem._replace(wiring=plan.graph.wiring)
    searches = unit_search.check_searches(question, plan, problem, net.seed, axis)
    session = start_run("filter_search", place, parts, axis, problem)
    dense = dense_nets(session, train, store)

    choices = filter_cuts.scored(session, plan, dense)
    choices += soft_filter_pruning.choices(session, plan)
    choices += unit_search.choices(session, question, plan, searches, dense)
    groups = filter_cuts.cut(plan, problem, choices)
    summary = structured_runs.train_nets(session, plan, groups, dense)

    figures.draw_widths(session.folder)
    figures.draw_accuracies(session.folder)
    print(table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: thesis or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
