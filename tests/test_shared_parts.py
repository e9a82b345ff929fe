"""Parts that processes share: who may claim, who takes over, and that the numbers are the same."""

import json
import os
import signal
import subprocess
import threading
import time

import commands
import pytest
from commands import metrics, summary

from experiments.harness import provenance, records, rows, shared_parts
from experiments.harness.shared_parts import ShareSettings
from jaxtickets.io.errors import UserError


def test_each_part_is_done_once_however_many_share_them(tmp_path):
    done = []

    def work(name, folder):
        done.append(name)
        time.sleep(0.01)
        return [{"part": name, "value": float("nan") if name == "b" else 0.1}]

    names = ["a", "b", "c", "d", "e"]
    found = []

    def process():
        found.append(shared_parts.do_all(tmp_path, names, work, lease=60, poll=0.01))

    threads = [threading.Thread(target=process) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == names
    assert [[part.rows[0]["part"] for part in one] for one in found] == [names] * 3
    assert found[0][0].rows[0]["value"] == 0.1 and found[0][1].rows[0]["value"] != 0.1


def test_a_part_without_a_living_owner_is_taken_over_with_what_is_left(tmp_path):
    part = tmp_path / "a"
    (part / "1").mkdir(parents=True)
    (part / "1" / "half").write_text("done")
    (part / "1.claim").touch()
    (part / "2.claim").touch()  # killed before it had made its folder
    started = time.monotonic()

    def work(name, folder):
        assert (folder / "half").read_text() == "done"
        (folder / "half").write_text("more")
        return [{"x": 1}]

    (found,) = shared_parts.do_all(tmp_path, ["a"], work, lease=0.2)
    assert time.monotonic() - started >= 0.2  # only after the lease
    assert found == (part / "3", [{"x": 1}])
    assert shared_parts.finished(tmp_path) == [found]
    assert (part / "1" / "half").read_text() == "done"  # its first owner may be alive after all


def test_a_living_owner_keeps_its_part_longer_than_its_lease(tmp_path):
    begun = threading.Event()

    def slow(name, folder):
        begun.set()
        time.sleep(1.2)
        return [{"by": "first"}]

    owner = threading.Thread(
        target=lambda: shared_parts.do_all(tmp_path, ["a"], slow, lease=0.4), daemon=True
    )
    owner.start()
    begun.wait()
    (found,) = shared_parts.do_all(
        tmp_path, ["a"], lambda name, folder: [{"by": "second"}], lease=0.4
    )
    owner.join()
    assert found.rows == [{"by": "first"}]
    assert [path.name for path in (tmp_path / "a").glob("*.claim")] == ["1.claim"]


def test_the_first_value_is_agreed_on(tmp_path):
    assert shared_parts.agreed(tmp_path / "new" / "size", 4) == 4
    assert shared_parts.agreed(tmp_path / "new" / "size", 7) == 4
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["size"]


def test_shared_processes_need_a_folder():
    with pytest.raises(UserError, match="give the folder that the processes share by --out"):
        shared_parts.check(ShareSettings(share_cells=True), "")
    shared_parts.check(ShareSettings(), "")


def test_a_run_is_joined_only_by_its_like(tmp_path):
    folder = tmp_path / "run"
    first = records.open_run("grid", {"a": 1}, folder, shared=True)
    assert not first.resumed
    try:
        assert records.open_run("grid", {"a": 1}, folder, shared=True).resumed
        with pytest.raises(UserError, match="the spec has changed: a: 1 -> 2"):
            records.open_run("grid", {"a": 2}, folder, shared=True)
        with pytest.raises(UserError, match="is in use"):
            records.open_run("grid", {"a": 1}, folder)
    finally:
        records._unlock(folder)


def test_a_process_ends_its_own_session(tmp_path):
    folder = tmp_path / "run"
    records.open_run("grid", {"a": 1}, folder, shared=True)
    try:
        (mine,) = provenance.read(folder)
        other = mine | {"process": "elsewhere:1"}
        path = folder / "provenance.json"
        path.write_text(json.dumps({"sessions": [mine, other]}))
        records.finish_run(folder)
        assert [bool(one["ended"]) for one in provenance.read(folder)] == [True, False]
    finally:
        records._unlock(folder)


def owner_of_a_started_cell(folder):
    """Process and part of the first part of the grid that has a checkpoint; None if none has."""
    for saved in folder.glob("parts/grid-*/*/checkpoints/*/00000001/manifest.json"):
        claim = saved.parents[3].with_suffix(".claim")
        part = claim.parent
        if not (part / shared_parts.DONE).exists():
            return json.loads(claim.read_text())["process"], part
    return None


def seen_losses(folder):
    """What a run's metrics have seen of each training."""
    fields = ("method", "threshold", "rewind", "seed", "step", "loss")
    looks = [row for row in metrics(folder) if "step" in row]
    return {tuple(row.get(field) for field in fields) for row in looks}


def test_a_killed_processs_cells_are_done_by_the_other_to_the_same_numbers(smokes, cache, tmp_path):
    folder = tmp_path / "run"
    words = commands.command("ticket_grid", "--smoke", f"--out={folder}", "--share_cells")
    words += ["--lease_seconds=2", "--checkpoint_seconds=0", "--cost_trainings=2"]
    alone, _ = smokes("ticket_grid")
    two = [
        subprocess.Popen(
            words,
            cwd=commands.ROOT,
            env=commands.environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    deadline, found = time.monotonic() + 240, None
    while found is None and time.monotonic() < deadline:
        time.sleep(0.005)
        found = owner_of_a_started_cell(folder)
    assert found, "no cell was ever begun"
    killed, part = found
    os.kill(killed, signal.SIGKILL)
    (other,) = [process for process in two if process.pid != killed]
    said, _ = other.communicate(timeout=240)
    assert other.returncode == 0, said
    assert summary(folder) == summary(alone)
    expected, seen = seen_losses(alone), seen_losses(folder)
    assert seen == expected and len(seen) > 20
    # once each, and not again as those of parts
    assert len(rows.read_csv(folder / rows.OBSERVATIONS)) == len(seen)
    assert "pruned %" in said and said.splitlines()[-1] == f"run: {folder}"
    claims = sorted(path.name for path in part.glob("*.claim"))
    assert claims in (["1.claim"], ["1.claim", "2.claim"])  # it may just have ended before its kill
    ended = {name for name in os.listdir(folder / "parts") if name != "size.json"}
    assert ended == {"dense-0", "dense-1", "report", *(f"grid-{i:02d}" for i in range(5))}
    for process in two:
        process.wait()
