"""Several processes: the run axis among them, and what one tells the others."""

import json
import shutil
import socket
import subprocess
import sys

import commands
import pytest

TOGETHER = """
import json, os, sys
import jax, numpy as np
from pathlib import Path
from experiments.harness import setup
from jaxtickets import runs
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError

devices, port, count, number = map(int, sys.argv[1:5])
setup.configure(devices)
processes.start(f"localhost:{port}", count, number)

def one(row, factor):
    return {"x": factor * row["x"], "no": row["x"][:0], "key": jax.random.split(row["key"])[1]}

said = {}
for mode, width, many in (("map", 1, 5), ("map", 1, 1), ("vmap", 2, 7), ("shard", 1, 9),
                          ("data", 1, 3)):
    axis = runs.axis(mode, width)
    rows = {"x": np.arange(3.0 * many).reshape(many, 3), "key": jax.random.split(
        jax.random.key(1), many)}
    placed = runs.split(rows, axis)
    left, right = runs.unzip(runs.batch(lambda r, f: (one(r, f), r["x"]), axis)(
        placed, runs.share(np.float32(2), axis)))
    found, first = runs.join(left), runs.join(right)
    said[f"{mode}{width}x{many}"] = [
        np.asarray(a).tolist()
        for a in (found["x"], found["no"], jax.random.key_data(found["key"]), first)
    ] + [sum(block is not None for block in placed.blocks)]
said["each"] = processes.of_each("x" * (number + 1))
said["told"] = processes.told(lambda: {"of": jax.process_index()})
try:
    processes.told(lambda: (_ for _ in ()).throw(UserError("no such file")))
except UserError as error:
    said["error"] = str(error)
folder = Path(sys.argv[5])
mine = processes.copied(folder)
said["copied"] = [mine == folder, sorted(path.name for path in mine.iterdir())]
print("speaks", file=processes.stderr())
print(json.dumps(said), file=sys.stderr)
"""


def together(words, count, cache):
    """Output, errors and status of processes that are told where, how many and which they are."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    started = [
        subprocess.Popen(
            words(port, number),
            cwd=commands.ROOT,
            env=commands.environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [process.communicate(timeout=600) for process in started]
    return [(*one, process.returncode) for one, process in zip(said, started, strict=True)]


def told(process):
    """What a process wrote last."""
    return json.loads(process[1].splitlines()[-1])


def test_every_process_has_all_rows_in_order(cache, tmp_path):
    (tmp_path / "kept").write_text("x")
    (tmp_path / ".lock").touch()

    def words(count):
        python = sys.executable, "-c", TOGETHER, "4"
        return lambda port, number: [*python, str(port), str(count), str(number), str(tmp_path)]

    (alone,) = together(words(1), 1, cache)
    assert alone[2] == 0, alone[1]
    golden = told(alone)
    made = together(words(2), 2, cache)
    assert [status for *_, status in made] == [0, 0], made[0][1] + made[1][1]
    first, second = map(told, made)
    for name in ("map1x5", "map1x1", "vmap2x7", "shard1x9", "data1x3"):
        for seen in (first[name], second[name]):
            assert seen[:-1] == golden[name][:-1], name
    # five blocks in two processes of four devices: three each, the last of them padding; nine rows
    # in blocks of four: three, or two each
    assert [s["map1x5"][-1] for s in (golden, first, second)] == [5, 3, 3]
    assert [s["shard1x9"][-1] for s in (golden, first, second)] == [3, 2, 2]
    assert first["told"] == second["told"] == {"of": 0}
    assert first["each"] == second["each"] == ["x", "xx"] and golden["each"] == ["x"]
    assert first["error"] == second["error"] == "no such file"
    assert first["copied"] == [True, [".lock", "kept"]] and second["copied"] == [False, ["kept"]]
    assert "speaks" in made[0][1] and "speaks" not in made[1][1]


def test_a_run_of_two_processes_has_the_numbers_of_one(smokes, cache, tmp_path):
    folder, store = tmp_path / "run", tmp_path / "dense"
    alone, _ = smokes("trainability")
    shutil.copytree(alone.parent.parent / "dense", store)
    words = commands.command(
        "trainability", "--smoke", f"--out={folder}", f"--dense_store={store}", "--num_processes=2"
    )

    def process(port, number):
        return [*words, f"--coordinator=localhost:{port}", f"--process_id={number}"]

    first, second = together(process, 2, cache)
    assert first[-1] == second[-1] == 0, first[1] + second[1]
    assert first[0].splitlines()[-1] == f"run: {folder}" and not second[0]
    assert commands.summary(folder) == commands.summary(alone)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num_processes=2", "--coordinator, --num_processes and --process_id: give all three"),
        (
            "--coordinator=localhost:1 --num_processes=2 --process_id=2",
            "--process_id=2: there are 2 processes, counted from 0",
        ),
        ("--distributed", "name the processes by --coordinator=HOST:PORT"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, cache):
    ((status, said),) = commands.answers([["trainability", "--smoke", *words.split()]], cache)
    assert status == 1 and message in said and len(said.strip().splitlines()) == 1, said
