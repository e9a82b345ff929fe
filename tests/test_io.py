"""The host's side: errors in one line, run folders, checkpoints, tickets, progress."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness import (
    canvas,
    compilation,
    flags,
    memory,
    progress,
    provenance,
    records,
    rows,
    setup,
)
from experiments.harness.flags import RunSettings, choose, whole_numbers
from experiments.harness.settings import option
from jaxtickets.io import checkpoints, trees
from jaxtickets.io.errors import UserError
from jaxtickets.io.tickets import load_ticket, save_ticket
from jaxtickets.types import Ticket


def start(code: str, *words: str, **options: Any) -> subprocess.Popen:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *words], **options)


def flip(path, position=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(bytes(data))


# --- errors --------------------------------------------------------------------------------------

PROGRAM = '''
    """What is asked."""
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without
    from absl import flags
    from experiments.harness import main
    flags.DEFINE_integer("steps", 10, "how many steps", lower_bound=1)
    flags.DEFINE_boolean("resume", False, "go on")
    main.run_main(lambda: ({}))
'''
IN_A_RUN = PROGRAM.replace("harness import main", "harness import main, records")


def outcome(body: str, *words: str) -> tuple[int, str, str]:
    process = start(PROGRAM.replace("{}", body), *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


RAISE = "(_ for _ in ()).throw({})"
USER = RAISE.replace("{}", "main.UserError('no such\\n  thing')")
FULL = RAISE.replace("{}", "OSError(28, 'No space left on device', 'a.csv')")
DATA = RAISE.replace("{}", "__import__('jaxtickets.data.errors').data.errors.DataError('x')")


@pytest.mark.parametrize(
    ("body", "words", "status", "says"),
    [
        (USER, [], 1, "error: no such thing"),
        (DATA, [], 1, "error: x"),
        (FULL, [], 1, "error: can't use a.csv: No space left on device\n"),
        ("0", ["word"], 2, "error: unexpected argument 'word': flags start with --"),
        ("0", ["--steps=3", "-", "x"], 2, "error: unexpected argument '-': flags start with --"),
        ("0", ["--stpes=3"], 2, "Did you mean: steps"),
        ("0", ["--steps=many"], 2, "--steps=many"),
        ("0", ["--steps=0"], 2, "--steps=0"),
        ("0", ["--steps"], 2, "steps"),
        ("signal.raise_signal(signal.SIGINT)", [], 130, "stopped"),
    ],
    ids=[
        "user",
        "data",
        "disk",
        "word",
        "dash",
        "unknown",
        "kind",
        "bound",
        "missing",
        "interrupt",
    ],
)
def test_what_a_user_can_put_right_is_one_line_and_a_status(body, words, status, says):
    code, out, err = outcome(body, *words)
    assert (code, out) == (status, "")
    assert err.count("\n") == 1 and says in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("body", "kind"), [("1 / 0", "ZeroDivision"), ("open('x')", "FileNotFound")]
)
def test_a_programming_error_keeps_its_traceback(body, kind):
    code, _, err = outcome(body)
    assert code == 1 and "Traceback" in err and f"{kind}Error" in err


def test_a_run_without_error_exits_with_0():
    assert outcome("print(flags.FLAGS.steps)", "--steps=3") == (0, "3\n", "")


def test_help_lists_the_programs_own_flags_first():
    code, out, err = outcome("0", "--help")
    assert (code, err) == (0, "")
    assert out.startswith("What is asked.\n\nFlags:\n  --steps\n      how many steps (")
    assert "default 10" in out and "--[no]resume" in out and "verbosity" not in out


def test_an_interrupt_names_the_folder_that_goes_on(tmp_path):
    body = f"records.open_run('e', {{'a': 1}}, out='{tmp_path}/run') and signal.raise_signal(2)"
    process = start(IN_A_RUN.replace("{}", body))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    resume = f"the same command with --resume --out={tmp_path}/run continues the run"
    assert err == f"stopped; {resume}\n"


def test_a_full_disk_names_the_file_and_how_the_run_goes_on(tmp_path):
    body = f"records.open_run('e', {{'a': 1}}, out='{tmp_path}/run') and {FULL}"
    process = start(IN_A_RUN.replace("{}", body))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == (
        "error: can't use a.csv: No space left on device; when this is corrected, "
        f"the same command with --resume --out={tmp_path}/run continues the run\n"
    )


def test_an_unknown_name_is_answered_with_the_closest():
    assert choose("model", "lenet5", ["lenet5"]) == "lenet5"
    with pytest.raises(UserError, match=r"^unknown model 'lenet6': did you mean lenet5\?"):
        choose("model", "lenet6", ["a", "lenet5"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inf"], "--n=inf: must be finite numbers"),
        (["1", "nan"], "--n=1,nan: must be finite numbers"),
        (["1e999"], "--n=1e999: must be finite numbers"),
        (["1", "2.5"], "--n=1,2.5: must be whole numbers"),
        (["many"], "--n=many: must be numbers, comma-separated"),
    ],
)
def test_numbers_of_a_list_are_finite_and_whole_ones_whole(words, says):
    with pytest.raises(UserError) as error:
        whole_numbers("n", words)
    assert str(error.value) == says
    assert whole_numbers("n", ["3", "1e2"]) == (3, 100)


def test_a_flag_may_be_infinite_but_not_nan(monkeypatch):
    unsaid = SimpleNamespace(present=False)
    monkeypatch.setattr(flags.flags, "FLAGS", dict.fromkeys(vars(RunSettings()), unsaid))
    most = flags.read(RunSettings, RunSettings(), {"checkpoint_seconds": float("inf")})
    assert most.checkpoint_seconds == float("inf")
    with pytest.raises(UserError, match="--checkpoint_seconds=nan: must be a number"):
        flags.read(RunSettings, RunSettings(), {"checkpoint_seconds": float("nan")})


@pytest.mark.parametrize(("count", "fits"), [(10, True), (11, False), (10**30, False)])
def test_what_clearly_cannot_fit_into_memory_is_refused(count, fits, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10e9)
    if fits:
        return memory.check_memory("--n=10", count, 1e9, "runs")
    with pytest.raises(UserError) as error:
        memory.check_memory(f"--n={count}", count, 1e9, "runs")
    taken = {11: "11 GB", 10**30: "1e+21 EB"}[count]
    assert str(error.value) == (
        f"--n={count}: {count} runs take at least {taken} of memory, but 10 GB are available: "
        "at most 10 can fit"
    )


def test_memory_is_what_the_system_says_within_a_containers_limit(tmp_path, monkeypatch):
    assert memory.available() > 100e6
    (tmp_path / "max").write_text("12345\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "none", tmp_path / "max", tmp_path / "no"))
    assert memory.available() == 12345 * jax.process_count()
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 7})
    monkeypatch.setattr(memory.jax, "devices", lambda: [gpu])
    monkeypatch.setattr(memory.jax, "local_devices", lambda: [gpu, gpu])
    assert memory.available() == 14
    gpu.memory_stats = lambda: None
    assert memory.available() == float("inf")


def test_a_list_is_empty_only_where_that_means_something(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Lists:
        density: tuple = option((0.5,), "kept")
        race: tuple = option((0.5,), "shares", empty=True)

    unsaid = SimpleNamespace(present=False)
    monkeypatch.setattr(flags.flags, "FLAGS", {"density": unsaid, "race": unsaid})
    assert flags.read(Lists, Lists(), {"race": ()}).race == ()
    with pytest.raises(UserError, match="--density is empty"):
        flags.read(Lists, Lists(), {"density": ()})


@dataclasses.dataclass(frozen=True)
class Bounded:
    count: int = option(1, "n", least=1, most=10**6)
    rate: float = option(0.5, "r", above=0, most=1)
    share: float = option(0.5, "s", least=0, below=1)
    shares: tuple = option((0.5,), "of each", above=0, below=1)
    passes: tuple = option((), "of each", least=0, most=9, repeats=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"count": 0}, "count=0: must be 1 or more"),
        ({"count": 10**21}, f"count={10**21}: must be 1000000 or less"),
        ({"rate": float("inf")}, "rate=inf: must be above 0 and at most 1"),
        ({"rate": 0}, "rate=0.0: must be above 0 and at most 1"),
        ({"share": -1}, "share=-1.0: must be 0 or more"),
        ({"share": 1}, "share=1.0: must be below 1"),
        ({"share": float("-inf")}, "share=-inf: must be 0 or more"),
        ({"shares": ("0.5", "1")}, "shares=1.0: must be above 0 and below 1"),
        ({"shares": ("1e999",)}, "shares=1e999: must be finite numbers"),
        ({"shares": (10**400,)}, "must be numbers, comma-separated"),
        ({"shares": ("0.5", ".5")}, "shares has 0.5 twice"),
        ({"passes": ("10",)}, "passes=10.0: must be 9 or less"),
        ({"passes": ("much",)}, "passes=much: must be numbers, comma-separated"),
    ],
    ids=str,
)
def test_a_number_out_of_bounds_is_one_line(values, says, monkeypatch):
    monkeypatch.setattr(
        flags.flags, "FLAGS", dict.fromkeys(vars(Bounded()), SimpleNamespace(present=False))
    )
    with pytest.raises(UserError) as error:
        flags.read(Bounded, Bounded(), values)
    assert str(error.value).endswith(says)


def test_numbers_within_bounds_are_taken_and_some_lists_repeat_them(monkeypatch):
    monkeypatch.setattr(
        flags.flags, "FLAGS", dict.fromkeys(vars(Bounded()), SimpleNamespace(present=False))
    )
    given = {"count": 10**6, "rate": 1, "share": 0, "passes": ("3", "3")}
    assert flags.read(Bounded, Bounded(), given) == Bounded(10**6, 1.0, 0.0, (0.5,), (3.0, 3.0))


# --- run folders ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Spec:
    steps: int = 100
    density: float = 0.1
    seeds: tuple[int, ...] = (0, 1)


def test_the_hash_of_a_spec_is_stable_and_independent_of_order():
    # printf '{"a":1,"b":[1.5,"x"]}' | sha256sum
    assert records.spec_hash({"b": (1.5, "x"), "a": 1}) == "2532523068"
    assert records.spec_hash({"a": 1, "b": [1.5, "x"]}) == "2532523068"
    assert records.spec_hash(Spec()) == records.spec_hash(dataclasses.asdict(Spec()))
    assert records.spec_hash(Spec(steps=101)) != records.spec_hash(Spec())


def test_a_spec_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="object"):
        records.spec_hash({"a": object()})


def test_a_new_run_is_named_by_its_spec_and_records_where_it_comes_from(tmp_path):
    run = records.open_run("anneal", Spec(), root=tmp_path)
    assert run.folder.parent == tmp_path / "anneal" and not run.resumed
    spec = records.read_spec(run.folder)
    assert spec == {"experiment": "anneal", "steps": 100, "density": 0.1, "seeds": [0, 1]}
    assert run.folder.name.endswith("-" + records.spec_hash(spec))
    records.finish_run(run.folder)
    (session,) = provenance.read(run.folder)
    assert session["versions"]["jax"] == jax.__version__
    assert session["devices"]["count"] == len(jax.devices())
    assert session["started"] <= session["ended"]
    assert records.open_run("anneal", Spec(), root=tmp_path).folder != run.folder


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("spec", "resume", "says"),
    [
        (Spec(steps=200), False, r"holds another run \(steps: 100 -> 200\): choose another --out"),
        (Spec(), False, "is in use: --resume continues it, or choose another --out"),
        (Spec(seeds=(0,)), True, r"the spec has changed: seeds: \[0,1\] -> \[0\]$"),
    ],
)
def test_a_folder_in_use_is_refused_and_left_alone(tmp_path, spec, resume, says):
    folder = records.open_run("anneal", Spec(), out=tmp_path / "run").folder
    before = files(folder)
    with pytest.raises(UserError, match=says):
        records.open_run("anneal", spec, out=folder, resume=resume)
    assert files(folder) == before


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds files that are no run"):
        records.open_run("anneal", Spec(), out=tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]
    with pytest.raises(UserError, match="can't use"):
        records.open_run("anneal", Spec(), out=tmp_path / "thesis.tex" / "run")


def test_a_damaged_spec_is_reported(tmp_path):
    folder = records.open_run("anneal", Spec(), out=tmp_path / "run").folder
    for text in ('{"steps": 1', "[]", ""):
        (folder / "spec.json").write_text(text)
        with pytest.raises(UserError, match=r"spec\.json is damaged: "):
            records.open_run("anneal", Spec(), out=folder, resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sessions": [1]}'])
def test_damaged_provenance_is_reported(text, tmp_path):
    folder = records.open_run("anneal", Spec(), out=tmp_path / "run").folder
    (folder / "provenance.json").write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json is damaged: "):
        records.open_run("anneal", Spec(), out=folder, resume=True)


def test_resume_continues_the_named_folder_or_the_newest_of_the_same_spec(tmp_path):
    runs = [records.open_run("anneal", Spec(), root=tmp_path) for _ in range(2)]
    records.open_run("anneal", Spec(steps=1), root=tmp_path)
    assert records.open_run("anneal", Spec(), resume=True, root=tmp_path) == (runs[1].folder, True)
    assert records.open_run("anneal", Spec(), out=runs[0].folder, resume=True).resumed
    assert len(provenance.read(runs[0].folder)) == 2


def test_resume_with_nothing_to_resume_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        records.open_run("anneal", Spec(), out=tmp_path / "none", resume=True)
    with pytest.raises(UserError, match="nothing to resume: there is no run"):
        records.open_run("anneal", Spec(), resume=True, root=tmp_path)
    records.open_run("anneal", Spec(), root=tmp_path)
    with pytest.raises(UserError, match=r"has this spec; .* differs: steps: 100 -> 7"):
        records.open_run("anneal", Spec(steps=7), resume=True, root=tmp_path)
    assert not (tmp_path / "none").exists()


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    code = """
        import sys, time
        from experiments.harness import records
        records.open_run("e", {"a": 1}, out=sys.argv[1])
        print("open", flush=True)
        time.sleep(60)
    """
    process = start(code, str(tmp_path / "run"))
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="in use by another process"):
            records.open_run("e", {"a": 1}, out=tmp_path / "run", resume=True)
    finally:
        process.kill()
        process.communicate()
    assert records.open_run("e", {"a": 1}, out=tmp_path / "run", resume=True).resumed


def test_provenance_tells_a_changed_source_from_a_committed_one(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    source = tmp_path / "jaxtickets" / "__init__.py"
    source.parent.mkdir()
    source.touch()
    monkeypatch.setattr(provenance.jaxtickets, "__file__", str(source))
    git("init")
    assert provenance.commit() is None
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "m")
    clean = provenance.commit()
    assert clean is not None and len(clean) == 40
    (tmp_path / "notes.txt").touch()
    assert provenance.commit() == clean
    (tmp_path / "experiment.py").touch()
    assert provenance.commit() == clean + "-dirty"


# --- no room -------------------------------------------------------------------------------------


@contextlib.contextmanager
def room(size):
    """Files end at so many bytes, a stand-in for a disk without more room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LARGE = np.random.default_rng(0).standard_normal(100_000).astype("f")  # can't be made smaller


def test_a_checkpoint_without_room_leaves_nothing_but_those_before(tmp_path, capfd):
    checkpoints.save(tmp_path, 1, {"w": LARGE})
    with room(200_000), pytest.raises(OSError) as error:
        checkpoints.save(tmp_path, 2, {"w": 2 * LARGE})
    assert error.value.errno == errno.EFBIG
    assert error.value.filename.startswith(str(tmp_path / "00000002"))
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    step, found = checkpoints.restore(tmp_path, {"w": LARGE}, pytest.fail)
    assert step == 1 and np.array_equal(found["w"], LARGE)
    assert capfd.readouterr().err == ""


def test_a_disk_that_fills_up_while_arrays_are_written_is_no_traceback(tmp_path, monkeypatch):
    from orbax.checkpoint import v1

    def fail(place, arrays):
        (tmp_path / "t" / "half").touch()
        raise ValueError("RESOURCE_EXHAUSTED: Error writing \"0000/c/0\" [os_error_code='28']")

    monkeypatch.setattr(v1, "save", fail)
    with pytest.raises(OSError) as error:
        trees.write(tmp_path / "t", {"w": LARGE}, {})
    assert (error.value.errno, error.value.filename) == (
        errno.ENOSPC,
        str(tmp_path / "t" / "arrays"),
    )
    assert not list(tmp_path.iterdir())


def test_a_ticket_without_room_leaves_the_one_that_was_there(tmp_path):
    save_ticket(tmp_path / "t", ticket(), {"seed": 1})
    before, much = files(tmp_path), {"fc1": {"kernel": LARGE}}
    large = Ticket(much, {}, jax.tree.map(lambda p: p > 0, much), 0)
    with room(50_000), pytest.raises(OSError):
        save_ticket(tmp_path / "t", large, {"seed": 2})
    assert files(tmp_path) == before


def test_rows_without_room_are_not_written_by_halves(tmp_path):
    row = {"phase": "train", "step": 1}
    rows.append_metrics(tmp_path, row)
    rows.write_summary(tmp_path, [row])
    before = files(tmp_path)
    many = [{"phase": "train", "step": step} for step in range(1000)]
    with room(5000), pytest.raises(OSError, match=r"metrics\.jsonl"):
        rows.append_metrics(tmp_path, *many)
    with room(5000), pytest.raises(OSError, match=r"summary\.csv"):
        rows.write_summary(tmp_path, many)
    assert files(tmp_path) == before


def test_a_device_without_room_is_named(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError) as error:
        rows.append_metrics(tmp_path, {"phase": "train"})
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "metrics.jsonl")


def test_a_figure_without_room_leaves_no_half_of_it(tmp_path):
    fig, _ = canvas.subplots(1, 1, (3, 2))
    with room(1000), pytest.raises(OSError) as error:
        canvas.save(fig, tmp_path, "curves")
    assert error.value.filename == str(tmp_path / "figures" / "curves.png")
    assert not list((tmp_path / "figures").iterdir())


def test_a_run_without_room_leaves_no_folder_and_one_that_is_resumed_is_as_it_was(tmp_path):
    with room(10), pytest.raises(UserError, match=r"can't use .*-[0-9a-f]{10}/spec\.json: "):
        records.open_run("e", Spec(), root=tmp_path)
    with room(10), pytest.raises(UserError, match=r"can't use .*/new/spec\.json: "):
        records.open_run("e", Spec(), out=tmp_path / "new")
    assert not list((tmp_path / "e").iterdir()) and not (tmp_path / "new").exists()
    folder = records.open_run("e", Spec(), out=tmp_path / "new").folder
    rows.append_metrics(folder, {"phase": "train", "step": 1})
    before = files(folder)
    with room(10), pytest.raises(UserError, match=r"can't use .*/new/provenance\.json: "):
        records.open_run("e", Spec(), out=folder, resume=True)
    assert files(folder) == before
    assert records.open_run("e", Spec(), out=folder, resume=True).resumed


def test_a_file_where_a_folder_belongs_is_named_or_makes_room(tmp_path):
    (tmp_path / "file").touch()
    for out, resume in ((tmp_path / "file", False), (tmp_path / "file" / "run", False)):
        with pytest.raises(UserError, match=r"can't use .*file"):
            records.open_run("e", Spec(), out=out, resume=resume)
    with pytest.raises(UserError, match=r"can't use .*file"):
        records.open_run("e", Spec(), root=tmp_path / "file")
    with pytest.raises(UserError, match=r"nothing to resume in .*file"):
        records.open_run("e", Spec(), out=tmp_path / "file", resume=True)
    with pytest.raises(OSError, match="file"):
        checkpoints.save(tmp_path / "file", 1, {"w": np.ones(3)})
    (tmp_path / "phase").mkdir()
    (tmp_path / "phase" / "00000003").touch()
    checkpoints.save(tmp_path / "phase", 3, {"w": np.ones(3)})
    assert [path.name for path in (tmp_path / "phase").iterdir()] == ["00000003.1"]
    (tmp_path / "t").touch()
    save_ticket(tmp_path / "t", ticket(), {})
    assert load_ticket(tmp_path / "t")[1] == {}
    assert {path.name for path in tmp_path.iterdir()} == {"file", "phase", "t"}


# --- rows ----------------------------------------------------------------------------------------


def test_metrics_come_back_as_they_were_written(tmp_path):
    rows.append_metrics(tmp_path, {"phase": "train", "step": 1, "loss": jnp.float32(0.5)})
    losses = np.array([np.nan, -np.inf])
    rows.append_metrics(tmp_path, {"phase": "train", "step": np.int64(2), "loss": losses})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"phase": "train", "step": 2, "loss": ["nan", "-inf"]}
    first, second = rows.read_metrics(tmp_path)
    assert first == {"phase": "train", "step": 1, "loss": 0.5}
    assert np.isnan(second["loss"][0]) and second["loss"][1] == -np.inf


def steps(*numbers):
    return [{"phase": "train", "step": step} for step in numbers]


def test_a_kill_while_writing_metrics_costs_one_line(tmp_path):
    folder = records.open_run("e", {}, out=tmp_path / "run").folder
    rows.append_metrics(folder, *steps(1, 2))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "train", "step": 3, "lo')
    assert rows.read_metrics(folder) == steps(1, 2)
    records.open_run("e", {}, out=folder, resume=True)
    rows.append_metrics(folder, *steps(3))
    assert rows.read_metrics(folder) == steps(1, 2, 3)


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    train = steps(*range(4))
    search = [{"phase": "search", "step": step} for step in range(4)]
    rows.append_metrics(tmp_path, *train, *search)
    rows.keep_metrics(tmp_path, lambda row: row["phase"] == "train" or row["step"] <= 1)
    assert rows.read_metrics(tmp_path) == train + search[:2]


@pytest.mark.parametrize("line", ["no", "[1]", "3", "null", "{}", '{"phase": 1}', "\x00"])
def test_a_damaged_line_of_metrics_is_reported(line, tmp_path):
    folder = records.open_run("e", {}, out=tmp_path / "run").folder
    row = '{"phase": "train"}'
    (folder / "metrics.jsonl").write_text(f"{row}\n{line}\n{row}\n")
    for read in (rows.read_metrics, lambda folder: records.open_run("e", {}, folder, resume=True)):
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a "):
            read(folder)


def test_a_summary_keeps_columns_and_values(tmp_path):
    written = [{"loss": 0.1, "seed": 0, "best": True}, {"seed": 1, "note": "a, b", "loss": np.nan}]
    rows.write_summary(tmp_path, written, "seed")
    header, *_ = (tmp_path / "summary.csv").read_text().splitlines()
    assert header == "seed,loss,best,note"
    first, second = rows.read_summary(tmp_path)
    assert first == {"seed": 0, "loss": 0.1, "best": True, "note": None}
    assert np.isnan(second.pop("loss")) and second == {"seed": 1, "best": None, "note": "a, b"}


@pytest.mark.parametrize(
    "word",
    [
        "0123456789",
        "4e12",
        "1_0",
        " 7",
        "nan",
        "-inf",
        "True",
        '"',
        '"a"',
        '"1"',
        "\\",
        "é\n",
        "[1]",
        "a",
    ],
)
def test_a_word_of_a_summary_comes_back_as_a_word(word, tmp_path):
    rows.write_summary(tmp_path, [{"digest": word, "n": 12, "x": 4e12}])
    assert rows.read_summary(tmp_path) == [{"digest": word, "n": 12, "x": 4e12}]


# --- checkpoints ---------------------------------------------------------------------------------


class State(NamedTuple):
    params: Any
    stats: Any
    method_state: Any
    rest: Any


def state(scale=1.0) -> State:
    return State(
        params={
            "conv": {"kernel": scale * jnp.arange(6.0).reshape(2, 3)},
            "none": jnp.zeros((0, 2)),
        },
        stats={},
        method_state=(),
        rest={
            "key": jax.random.key(3),
            "keys": jax.random.split(jax.random.key(4, impl="rbg"), 2),
            "mask": jnp.array([True, False]),
            "pixels": np.arange(3, dtype=np.uint8),
            "step": jnp.int32(7),
            "half": jnp.full(2, jnp.nan, jnp.bfloat16),
            "numbers": [3, 0.5, True, np.float64(0.1)],
            "nothing": None,
        },
    )


def data_of(leaf):
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and jnp.shape(x) == jnp.shape(y)
        assert getattr(x, "dtype", None) == getattr(y, "dtype", None)
        assert np.asarray(data_of(x)).tobytes() == np.asarray(data_of(y)).tobytes()


def test_a_checkpoint_gives_back_the_state_bit_for_bit(tmp_path):
    checkpoints.save(tmp_path, 12, state())
    step, restored = checkpoints.restore(tmp_path, state(0.0))
    assert step == 12
    assert_same(restored, state())


def test_a_template_of_shapes_is_enough(tmp_path):
    saved = {"key": jax.random.key(0), "w": jnp.ones(3)}
    checkpoints.save(tmp_path, 0, saved)
    assert_same(checkpoints.restore(tmp_path, jax.eval_shape(lambda: saved))[1], saved)


def test_a_state_without_arrays_is_saved_too(tmp_path):
    checkpoints.save(tmp_path, 1, {"stats": {}})
    assert checkpoints.restore(tmp_path, {"stats": {}}) == (1, {"stats": {}})


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert checkpoints.restore(tmp_path / "none", state()) is None


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, {"w": jnp.full(2, step)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000003"]


def test_a_run_that_went_back_replaces_what_lay_ahead(tmp_path):
    for step, value in ((5, 0), (10, 1), (10, 2)):
        checkpoints.save(tmp_path, step, {"w": jnp.full(2, value)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000005", "00000010.1"]
    assert checkpoints.restore(tmp_path, {"w": jnp.zeros(2, int)})[1]["w"][0] == 2
    checkpoints.save(tmp_path, 7, {"w": jnp.full(2, 3)}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["00000007"]


def test_a_flipped_byte_is_noticed_and_the_checkpoint_before_is_taken(tmp_path):
    checkpoints.save(tmp_path, 1, state(1.0))
    newest = checkpoints.save(tmp_path, 2, state(2.0))
    paths = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    assert len(paths) >= 5
    for path in paths:
        whole = path.read_bytes()
        flip(path)
        warnings: list[str] = []
        step, restored = checkpoints.restore(tmp_path, state(), warnings.append)
        assert step == 1 and len(warnings) == 1 and "passed over" in warnings[0]
        assert_same(restored, state(1.0))
        path.unlink()
        assert checkpoints.restore(tmp_path, state(), warnings.append)[0] == 1
        path.write_bytes(whole)
    assert checkpoints.restore(tmp_path, state(), pytest.fail)[0] == 2


def test_a_checkpoint_that_does_not_fit_is_reported(tmp_path, capsys):
    checkpoints.save(tmp_path, 1, {"w": jnp.ones(3)})
    with pytest.raises(UserError, match="none of the 1 checkpoints"):
        checkpoints.restore(tmp_path, {"w": jnp.ones(4)})
    assert "it holds w float32[3] where w float32[4] belongs" in capsys.readouterr().err
    with pytest.raises(UserError):
        checkpoints.restore(tmp_path, {"w": jnp.ones(3), "x": jnp.ones(3)})


def test_an_incomplete_checkpoint_is_ignored_and_never_written_over(tmp_path):
    checkpoints.save(tmp_path, 1, {"w": jnp.ones(3)})
    newest = checkpoints.save(tmp_path, 2, {"w": jnp.ones(3)})
    (newest / "manifest.json").unlink()
    assert checkpoints.restore(tmp_path, {"w": jnp.ones(3)}, pytest.fail)[0] == 1
    assert checkpoints.save(tmp_path, 2, {"w": jnp.ones(3)}).name == "00000002.1"
    assert not newest.exists()


def test_a_kill_while_saving_leaves_a_checkpoint_that_can_be_restored(tmp_path):
    code = """
        import sys
        import numpy as np
        from jaxtickets.io import checkpoints
        for step in range(10_000):
            checkpoints.save(sys.argv[1], step, {"w": np.full(300_000, step, np.float32)})
            print(step, flush=True)
    """
    template = {"w": np.zeros(300_000, np.float32)}
    for delay in (0.013, 0.037, 0.071):
        folder = tmp_path / str(delay)
        process = start(code, str(folder))
        for _ in range(3):
            process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        last = 2 + len(process.communicate()[0].splitlines())
        step, restored = checkpoints.restore(folder, template, pytest.fail)
        assert step >= last and np.all(restored["w"] == step)


# --- tickets -------------------------------------------------------------------------------------


def ticket() -> Ticket:
    params = {"fc1": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}}
    mask = jax.tree.map(lambda p: p > 1, params)
    return Ticket(params, {}, mask, jnp.int32(30))


def test_a_ticket_is_loaded_without_knowing_what_is_in_it(tmp_path):
    about = {"net": {"name": "mlp", "widths": [3]}, "dataset": "mnist5k", "density": 0.5}
    about["lowest_loss"] = float("inf")
    assert save_ticket(tmp_path / "t", ticket(), about) == tmp_path / "t"
    loaded, provenance = load_ticket(tmp_path / "t")
    assert_same(loaded, ticket())
    assert provenance == about


def test_masks_are_written_eight_to_a_byte(tmp_path):
    odd = jnp.arange(21).reshape(3, 7) % 5 < 2  # 21 bits end within a byte
    tree = {"a": odd, "b": jnp.bool_(True), "none": jnp.zeros((0, 2), bool), "flag": False}
    trees.write(tmp_path / "t", tree, {})
    assert_same(trees.read(tmp_path / "t", tree), tree)
    manifest = trees.read_manifest(tmp_path / "t")
    template = {"0000": np.zeros(3, "u1"), "0001": np.zeros(1, "u1"), "0002": np.zeros(1, "u1")}
    stored = trees._load_arrays(tmp_path / "t" / "arrays", template)
    # i mod 5 is 0 or 1 at 0, 1, 5, 6, 10, 11, 15, 16, 20; three bits are left over
    np.testing.assert_array_equal(stored["0000"], [0b11000110, 0b00110001, 0b10001000])
    assert all(leaf["packed"] for leaf in manifest["leaves"])


def test_a_ticket_from_before_masks_were_packed_is_read(tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(trees, "_packed", lambda array: array)
        before.setattr(trees, "_raw", plainly)
        save_ticket(tmp_path / "t", ticket(), {"seed": 1})
    assert "packed" not in (tmp_path / "t" / "manifest.json").read_text()
    loaded, provenance = load_ticket(tmp_path / "t")
    assert_same(loaded, ticket())
    assert provenance == {"seed": 1}


def plainly(array):
    return {"raw_shape": list(array.shape), "raw_dtype": str(array.dtype)}


def test_a_ticket_is_replaced_whole(tmp_path):
    for step in (1, 2):
        save_ticket(tmp_path / "t", ticket()._replace(rewind_step=jnp.int32(step)), {})
    assert load_ticket(tmp_path / "t")[0].rewind_step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_damaged_ticket_is_refused(tmp_path):
    folder = save_ticket(tmp_path / "t", ticket(), {"density": 0.5})
    for path in [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]:
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(UserError, match=r"the ticket in .* is damaged"):
            load_ticket(folder)
        path.write_bytes(whole)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"density": 0.5', '"density": 0.6'))
    with pytest.raises(UserError, match="has changed"):
        load_ticket(folder)


def test_a_folder_without_a_ticket_is_reported(tmp_path):
    with pytest.raises(UserError, match="no ticket in"):
        load_ticket(tmp_path)
    with pytest.raises(UserError, match="holds a checkpoint"):
        load_ticket(checkpoints.save(tmp_path, 1, {}))


def test_a_ticket_that_could_not_be_loaded_is_not_saved(tmp_path):
    good = ticket()
    bad = [
        good._replace(mask={}),
        good._replace(params=(good.params,), mask=(good.mask,)),
        good._replace(stats={0: jnp.ones(1)}),
    ]
    for one in bad:
        with pytest.raises(ValueError, match=r"ticket's|in the mask"):
            save_ticket(tmp_path / "t", one, {})
    assert not trees.is_complete(tmp_path / "t")


# --- progress ------------------------------------------------------------------------------------


def test_a_progress_line_reads_as_in_the_manual():
    values = {"T": 0.0031, "best": 0.412, "mean": 0.498, "accepted": 0.23}
    formats = {"T": ".1e", "best": ".3f", "mean": ".3f", "accepted": ".0%"}
    assert progress.line("search", 1200, 8000, values, formats, "1850 eval/s", 92) == (
        "search  1200/8000  15 %  T 3.1e-03  best 0.412  mean 0.498  accepted 23 %"
        "  1850 eval/s  left 1:32 of this phase"
    )
    # what follows in the run is known: an hour and 32 s more, or nothing
    assert progress.line("train", 5, 10, {}, {}, left=92, whole=3724).endswith(
        "  left 1:32, of the run 1:02:04"
    )
    assert progress.line("train", 5, 10, {}, {}, left=92, whole=92).endswith("  left 1:32")
    assert progress.line("train", 5, 10, {"at": "seed 1", "x": np.nan}, {}) == (
        "train   5/10  50 %  at seed 1  x nan"
    )


def test_durations_are_minutes_or_hours():
    seconds = (0, 59.4, 60, 3599.6)  # the last rounds to an hour
    assert [progress.duration(s) for s in seconds] == [
        "0:00",
        "0:59",
        "1:00",
        "1:00:00",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, stop=11, later=0.0):
    clock = iter(range(0, 100, 2))
    live = progress.Progress(
        label="go",
        total=10,
        formats={"x": ".1f"},
        unit="run",
        per_step=4,
        stream=stream,
        every=5,
        clock=lambda: next(clock),
        later=later,
    )
    with live:
        for step in range(1, stop):
            live.update(step, x=step)
    return stream.getvalue()


def test_a_log_gets_the_first_line_the_last_and_one_every_few_seconds():
    # a step takes 2 s and holds 4 runs: 2 run/s; shown are 0 s, 6 s, 12 s and the last, 18 s
    assert shown(io.StringIO()).splitlines() == [
        "go   1/10  10 %  x 1.0",
        "go   4/10  40 %  x 4.0  2 run/s  left 0:12",
        "go   7/10  70 %  x 7.0  2 run/s  left 0:06",
        "go  10/10  100 %  x 10.0  2 run/s  left 0:00",
    ]


def test_the_line_tells_the_time_of_the_whole_run_only_where_what_follows_is_known():
    # 2 run/s: 20 runs more take 10 s
    assert [line.partition("left ")[2] for line in shown(io.StringIO(), later=20).splitlines()] == [
        "",
        "0:12, of the run 0:22",
        "0:06, of the run 0:16",
        "0:00, of the run 0:10",
    ]
    assert shown(io.StringIO(), later=None).splitlines()[1].endswith("left 0:12 of this phase")


def test_a_run_that_stops_early_shows_its_last_step():
    assert shown(io.StringIO(), stop=7).splitlines()[-1].startswith("go   6/10")


def test_a_terminal_sees_one_line_rewritten():
    text = shown(Terminal())
    assert text.count("\r") == 10 and text.count("\n") == 1 and text.endswith("\x1b[K\n")


def test_the_line_says_compiling_while_it_is(compiled):
    del compiled  # programs are kept, so that JAX tells when it begins
    stream = Terminal()
    with progress.Progress("go", 2, stream=stream) as live:
        live.announce()
        with compilation.watched("search", live.compiling):
            before = compilation.seconds()
            jax.jit(lambda x: x * 3.25 - 7)(np.ones(3))
            after = compilation.seconds()
        live.update(1)
    compiling = stream.getvalue().index("go  0/2   0 %  compiling")
    assert stream.getvalue().rindex("go  0/2   0 %\x1b") > compiling
    assert "compiling program 1\x1b" in stream.getvalue()
    assert after["search"] > before.get("search", 0)
    assert after["elsewhere"] == before["elsewhere"]
    log = io.StringIO()
    live = progress.Progress("go", 2, stream=log)
    live.announce()
    live.announce()
    live.announce(best=0.25)
    assert log.getvalue().splitlines() == [
        "go  0/2   0 %  compiling",
        "go  0/2   0 %  best 0.25  compiling",
    ]


def test_a_log_says_that_it_compiles_if_nothing_was_said_for_some_seconds():
    log, now = io.StringIO(), [0]
    live = progress.Progress("go", 2, stream=log, every=5, clock=lambda: now[0])
    live.announce()
    for at, starts in ((1, True), (4, False), (4, True), (10, True), (60, False), (90, False)):
        now[0] = at  # 3 s, then two devices from 4 to 90
        live.compiling(starts)
    now[0] = 100
    live.compiling(True)
    assert log.getvalue().splitlines() == [
        "go  0/2   0 %  compiling",
        "go  0/2   0 %  compiling program 3, 0:03 so far",
        "go  0/2   0 %  compiling program 4, 1:29 so far",
    ]


def test_a_terminal_says_that_it_compiles_between_phases(compiled):
    del compiled
    stream = Terminal()
    before = list(compilation._elsewhere)
    try:
        compilation.watch_elsewhere(progress.between_phases(stream))
        with compilation.watched("search", lambda now: None):
            jax.jit(lambda x: x * 5.25 - 3)(np.ones(3))
        assert not stream.getvalue()
        jax.jit(lambda x: x * 4.25 - 9)(np.ones(3))
    finally:
        compilation._elsewhere[:] = before
    assert stream.getvalue() == "\rbetween phases  compiling program 1\x1b[K\r\x1b[K"
    log = io.StringIO()
    progress.between_phases(log)(True)
    assert not log.getvalue()


def test_a_narrow_terminal_gets_the_lines_last_part(monkeypatch):
    text = "go  1/10  10 %  x 1.0  y 2.5  2 run/s  left 0:12"
    assert progress.fitted(text, len(text)) == text
    assert progress.fitted(text, len(text) - 1) == "go  1/10  10 %  x 1.0  y 2.5  left 0:12"
    assert progress.fitted(text, 30) == "go  1/10  10 %  left 0:12"
    assert progress.fitted(text, 10) == "go  1/10  "
    monkeypatch.setenv("COLUMNS", "46")
    stream = Terminal()
    live = progress.Progress("some runs", 2, stream=stream)
    live.announce(loss=0.25)
    live.compiling(True)
    assert stream.getvalue().endswith("\rsome runs  0/2   0 %  compiling program 1\x1b[K")


# --- set-up --------------------------------------------------------------------------------------


def test_set_up_gives_a_device_a_core_and_a_cache(tmp_path):
    code = """
        from experiments.harness import setup
        import os, sys
        setup.configure(int(sys.argv[1]) or None)
        import jax
        jax.jit(lambda x: x + 1)(1.0)
        print(len(jax.devices("cpu")), setup.cores(), setup.describe_devices())
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    env = inherited | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    outs = [start(code, n, env=env).communicate(timeout=60)[0].split() for n in ("0", "3")]
    assert outs[0][0] == outs[0][1] and outs[1][0] == "3"
    assert outs[1][2:5] == ["3", "x", "cpu"]
    assert any((tmp_path / "jaxtickets" / "xla").iterdir())


@pytest.mark.parametrize(
    ("asked", "golden"),
    [("float32", "float32"), ("bfloat16", "float32"), ("tf32", "tensorfloat32")],
)
def test_an_accelerator_computes_in_the_precision_asked_for(asked, golden, monkeypatch):
    class Accelerator:
        platform = "gpu"

    monkeypatch.setattr(setup.jax, "devices", lambda: [Accelerator()])
    monkeypatch.setattr(setup, "configure", lambda devices: None)
    try:
        setup.start(RunSettings(), asked)
        product = jax.jit(lambda x: x @ x).lower(np.ones((2, 2), "f")).as_text()
        assert jax.config.jax_default_matmul_precision == golden
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert ("HIGHEST" in product) == (golden == "float32")


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert setup.cache_folder() is None


def test_fewer_than_one_device_is_an_error():
    with pytest.raises(UserError, match="--devices=0"):
        setup.configure(devices=0)
