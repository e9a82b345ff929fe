"""The experiment as its user meets it: its command, its folder, its errors, kill and resume."""

import json

import commands
import pytest
from commands import summary

from jaxtickets import masks, nets
from jaxtickets.io.tickets import load_ticket

COMMAND = commands.command("sa_search", "--smoke")
METHODS = {"ticket", "random", "random_layerwise", "magnitude", "snip", "granet", "dense"}
PLAIN = commands.command(
    "sa_search",
    "--preset=annealing",
    "--model=lenet300_100",
    *("--seeds=1", "--chains=2", "--steps=20", "--chunk=10", "--images=50", "--burn_in=5"),
    *("--widths=30,20", "--epochs=2", "--batch_size=250"),
)


@pytest.fixture(scope="module")
def smoke(smokes):
    """A finished smoke run: its folder and the process."""
    return smokes("sa_search")


def test_the_last_line_names_the_folder(smoke):
    folder, done = smoke
    assert done.stdout.splitlines()[-1] == f"run: {folder}"


def test_a_live_line_shows_the_search(smoke):
    _, done = smoke
    lines = [line for line in done.stderr.splitlines() if line.startswith("search")]
    assert " 0/20 " in lines[0]
    assert " 0/20 " in lines[1] and "best" in lines[1], "the first masks' energies come early"
    assert all(word in lines[-1] for word in ("20/20", "T ", "best", "mean", "accepted", "left"))


def test_the_summary_has_a_row_a_method_and_seed(smoke):
    folder, _ = smoke
    header = (folder / "summary.csv").read_text().splitlines()[0]
    assert header.startswith("method,density,seed,untrained_accuracy,trained_accuracy,seconds")
    rows = summary(folder)
    assert {row["method"] for row in rows} == METHODS
    for row in rows:
        assert 0 <= float(row["untrained_accuracy"]) <= 1
        assert 0 <= float(row["trained_accuracy"]) <= 1


def test_every_method_keeps_as_many_weights_as_the_ticket(smoke):
    folder, _ = smoke
    kept = {
        row["method"]: sum(int(v) for k, v in row.items() if k.startswith("kept/"))
        for row in summary(folder)
    }
    dense = kept.pop("dense")
    assert dense == 24_320
    assert set(kept.values()) == {12_160}


def test_what_searched_says_what_it_cost_and_what_it_reached(smoke):
    rows = {row["method"]: row for row in summary(smoke[0])}
    losses = ("search_loss", "search_validation_loss", "forward_passes")
    said = {name for name, row in rows.items() if all(row[field] for field in losses)}
    assert said == {"ticket", "granet"}


def test_records_and_figures_are_there(smoke):
    folder, _ = smoke
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["model"] == "lenet300_100"
    phases = {json.loads(line)["phase"] for line in (folder / "metrics.jsonl").open()}
    assert phases == {"search", "granet-0.5", "granet-0.5-schedule", "dense", "train"}
    for name in ("search", "accuracies", "layers"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000


def test_the_ticket_loads_with_its_net(smoke):
    folder, _ = smoke
    ticket, provenance = load_ticket(folder / "tickets" / "ticket-density0.5-seed0")
    net = nets.from_json(provenance["net"])
    assert nets.name_of(net) == "lenet300_100"
    assert int(masks.count(ticket.mask, tuple(provenance["prunable"]))) == 12_160
    # the weights are those that the mask selects from, and not yet masked
    assert all((kernel != 0).all() for kernel in masks.pick(ticket.params, provenance["prunable"]))


def test_a_run_killed_twice_resumes_to_the_numbers_that_its_masks_have_beside_others(
    smoke, cache, tmp_path
):
    folder, compared = tmp_path / "run", ("ticket", "snip")
    words = [*COMMAND, f"--compare={','.join(compared)}", f"--out={folder}"]
    commands.kill_and_resume(words, folder, ("search", "train"), cache)
    beside = [row for row in summary(smoke[0]) if row["method"] in compared]
    assert len(beside) == 2
    assert summary(folder) == beside
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    names = ("phase", "chunk", "method", "chain", "step")
    keys = [tuple(str(row.get(name)) for name in names) for row in rows]
    assert len(set(keys)) == len(keys)


def test_chains_that_meet_resume_to_the_same_numbers(cache, tmp_path):
    words = [*PLAIN, "--interaction=exchange", "--compare=ticket"]
    done = commands.run([*words, f"--out={tmp_path / 'whole'}"], cache)
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "killed"
    more = "--devices=2"
    commands.kill_and_resume([*words, f"--out={killed}"], killed, ("search",), cache, more)
    assert summary(killed) == summary(tmp_path / "whole")
    searched = [row for row in commands.metrics(killed) if row["phase"] == "search"]
    for step in {row["step"] for row in searched}:
        for seed in {row["seed"] for row in searched}:
            at = [r["temperature"] for r in searched if (r["step"], r["seed"]) == (step, seed)]
            assert max(at) == pytest.approx(10 * min(at))


def test_the_default_search_trains_the_weights_and_says_what_it_cost(cache, tmp_path):
    folder = tmp_path / "run"
    words = [*COMMAND, "--search=granet_heat", "--widths=30,20", "--compare=ticket,snip"]
    done = commands.run([*words, f"--out={folder}"], cache)
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in summary(folder)}
    assert set(rows) == {"ticket", "snip"}
    kept = {
        name: sum(int(v) for k, v in row.items() if k.startswith("kept/"))
        for name, row in rows.items()
    }
    assert kept == {"ticket": 12_160, "snip": 12_160}
    assert 0.5 < float(rows["ticket"]["search_cost"]) <= 1
    assert {row["phase"] for row in commands.metrics(folder)} == {"search-0.5", "train"}
    assert (folder / "figures" / "search.png").stat().st_size > 10_000


BAD = {
    "--model=lenet6": "did you mean lenet5",
    "--dataset=mnits": "did you mean mnist",
    "--preset=thesys": "did you mean thesis",
    "--preset=": "unknown preset ''",
    "--preset=thesis --model=lenet5": "--preset=thesis is for lenet300_100 and cnn960, not lenet5",
    "--compare=ticket,snap": "did you mean snip",
    "--preset=rewired --granularity=units --compare=ticket": "needs granularity=weights",
    "--preset=annealing --granularity=units --steps=25": "multiple of chunk=20",
    "--accept=metropolos": "did you mean metropolis",
    "--density=0": "--density=0.0: must be above 0 and below 1",
    "--density=1.5": "--density=1.5: must be above 0 and below 1",
    "--density=some": "must be numbers",
    "--preset=annealing --density=0.0001 --floor=0": "no weight is left in",
    "--preset=annealing --density=0.0001 --floor=100": "a floor of 100 needs",
    "word": "unexpected argument 'word'",
    "--no_such_flag=1": "no_such_flag",
    "--budget=4": "Unknown command line flag 'budget'",
    "--preset=rewired --sizes=constant --size_end=1": "--size_end: has no effect with --sizes",
    "--preset=annealing --train_steps=5": "--train_steps: has no effect with --energy=fixed",
    "--preset=rewired --temperature=2": "no effect with --accept=always and --proposal=trained",
    "--preset=thesis --model=lenet300_100 --burn_in=5": "--burn_in: has no effect with --temper",
    "--preset=annealed_training --steps=5": "--steps: has no effect with --search=granet_heat",
    "--preset=annealed_training --granularity=units": "--granularity: has no effect with --search",
    "--search=granet_hat": "did you mean granet_heat",
    "--tries=5": "--tries: has no effect with --tabu=0",
    "--compare=ticket --granet_budget=2": "no effect with --search=masks and --compare=ticket",
    "--weights_steps=5": "--weights_steps: has no effect with --weights=init",
    "--momentum=0.5": "--momentum: has no effect with --optimizer=adam",
    "--iterations=28 --epochs=3": "--epochs: has no effect with --iterations=28",
    "--granet_budget=0.01": "too little for granet, give",
    "--preset=annealing --scope=pattern --compare=granet": "it prunes single weights, not units",
    "--chains=0": "--chains=0: must be 1 or more",
    "--preset=annealing --chains=1 --interaction=exchange": "takes --chains=2 or more",
    "--steps=0": "--steps=0: must be 1 or more",
    "--steps=25": "multiple of chunk",
    "--seeds=0": "--seeds=0: must be 1 or more",
    "--images=1000000": "images=1000000",
    "--sizes=adaptive --target=2": "--target=2.0: must be above 0 and at most 1",
    "--learning_rate=-1": "--learning_rate=-1.0: must be above 0",
    "--batch_size=100000": "--batch_size=100000",
    "--train_images=5000": "mnist5k has 3500",
    "--train_images=19": "--train_images=19: give 20 or more",
    "--dataset=mnist --data_dir=/nowhere": "/nowhere",
    "--resume --out=EMPTY": "nothing to resume",
    "--out=OTHER": "holds another run",
    "--resume --out=OTHER": "the spec has changed",
    "--out=SAME": "--resume continues it",
}


@pytest.fixture(scope="module")
def answers(smoke, cache, tmp_path_factory):
    """What the experiment says of each bad command line, and its exit status."""
    folder = smoke[0]
    empty = tmp_path_factory.mktemp("empty") / "run"
    places = {"EMPTY": str(empty), "OTHER": str(folder), "SAME": str(folder)}
    cases = []
    for text in BAD:
        same = "SAME" in text
        for word, place in places.items():
            text = text.replace(word, place)
        given = text.split()
        cases.append(["sa_search", *(["--smoke"] if same or "preset" not in text else []), *given])
        if "OTHER" in list(BAD)[len(cases) - 1]:
            cases[-1].append("--seed=1")
    said = commands.answers(cases, cache)
    assert not empty.exists()
    return dict(zip(BAD, said, strict=True))


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_ends_in_one_line_before_work_starts(arguments, answers):
    status, said = answers[arguments]
    assert status not in (0, None)
    assert len(said.strip().splitlines()) == 1, said
    assert BAD[arguments] in said
    assert "Traceback" not in said


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_written(cache, tmp_path):
    folder = tmp_path / "run"
    extra = [f"--out={folder}", "--optimizer=sgd", "--learning_rate=1e6", "--compare=dense"]
    done = commands.run([*PLAIN, *extra], cache)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "training loss is not finite at step" in last and "dense 1.0 0" in last
    assert "Traceback" not in done.stderr
    assert (folder / "metrics.jsonl").read_text().count('"search"') == 4
