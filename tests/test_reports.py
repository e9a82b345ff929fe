"""What a run leaves at its end: one page without network, one table of its metrics, event files."""

import base64
import html.parser
import io
import json
import shutil
import struct
import subprocess

import numpy as np
import pytest

from experiments.harness import event_files, provenance, report, rows, session
from jaxtickets.io.errors import UserError

NASTY = "<script>alert(\"x\")</script> & 'y'"
SESSION = {
    "command": "/usr/bin/python -m experiments.sa_search --density=0.5 --out=runs/x",
    "commit": "0" * 40,
    "versions": {"python": "3.11.7", "jax": "0.10.2"},
    "devices": {"kind": "cpu", "count": 2},
    "cpu": "some <b>CPU</b>",
    "started": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:01:05+00:00",
    "compile_seconds": {"train": 1.5},
}
SUMMARY = [
    {"method": method, "density": density, "seed": 0, "untrained_accuracy": 0.1}
    | {"trained_accuracy": trained, "seconds": seconds, "kept/out/kernel": 4}
    for method, density, trained, seconds in (
        ("dense", 1.0, 0.97, 100.0),
        ("snip", 0.1, 0.9, 9.5),
        (NASTY, 0.1, 0.8, None),
        ("random", 0.1, 0.7, 20.0),
    )
]


@pytest.fixture
def run(tmp_path):
    """A finished run's folder, with three figures."""
    from PIL import Image

    folder = tmp_path / "the-run"
    (folder / "figures").mkdir(parents=True)
    spec = {"experiment": "sa_search", "seeds": 1, "names": ["a", NASTY], "empty": []}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps({"sessions": [SESSION]}), encoding="utf-8")
    rows.write_summary(folder, SUMMARY)
    for number, name in enumerate(("a_search", "accuracies", "layers")):
        Image.new("RGB", (30 + number, 20)).save(folder / "figures" / f"{name}.png")
    return folder


class Page(html.parser.HTMLParser):
    """What is on a page: its elements, the text of each kind, and whether all are closed."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_a_report_is_one_file_with_all_of_the_run_in_it(run):
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert page.open == []
    # the figure of the experiment's page first; each with its name, and whole
    images = page.all("img")
    names = ["accuracies.png", "a_search.png", "layers.png"]
    assert [image["alt"] for image in images] == page.texts["figcaption"] == names
    assert [image["width"] for image in images] == ["31", "30", "32"]
    for name, image in zip(names, images, strict=True):
        content = image["src"].removeprefix("data:image/png;base64,")
        assert base64.b64decode(content, validate=True) == (run / "figures" / name).read_bytes()
    readme = (report.pages.ROOT / "experiments/sa_search/README.md").read_text(encoding="utf-8")
    assert page.texts["h1"] == [readme.splitlines()[0].removeprefix("# ")]
    command, table = page.texts["pre"]
    assert command == "python -m experiments.sa_search --density=0.5"
    head = " ".join(table.splitlines()[0].split())
    assert head == "method density n untrained % trained % out"
    assert "1 min 5 s; commit 0000000000" in "".join(page.texts["p"])
    assert page.texts["td"][: 7 * 4] == [
        *("dense", "1.0", "0", "0.1", "0.97", "100.0", "4"),
        *("snip", "0.1", "0", "0.1", "0.9", "9.5", "4"),
        *(NASTY, "0.1", "0", "0.1", "0.8", "", "4"),
        *("random", "0.1", "0", "0.1", "0.7", "20.0", "4"),
    ]
    assert page.texts["summary"] == ["Spec", "Provenance"]
    assert {"a, " + NASTY, "(none)", "train 1.5", "some <b>CPU</b>"} <= set(page.texts["td"])


def test_a_report_needs_no_network_and_runs_nothing_that_the_run_wrote(run):
    text = report.write(run).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and "alert" not in page.texts["script"][0]
    assert not page.all("b") and "http://" not in text and "https://" not in text
    tags = {tag for tag, _ in page.found}
    assert not tags & {"link", "iframe", "object", "embed", "a", "form", "base"}
    sources = [value for _, found in page.found for name, value in found.items() if name == "src"]
    assert len(sources) == 3 and all(source.startswith("data:image/png") for source in sources)
    assert "url(" not in text and "@import" not in text
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CLICK = """<script>
const column = (name, click) => {
  const heads = [...document.querySelectorAll("table.rows th")];
  const at = heads.findIndex(head => head.textContent === name);
  if (click) heads[at].querySelector("button").click();
  return [...document.querySelectorAll("table.rows tbody tr")].map(r => r.cells[at].textContent);
};
const seen = [column("seconds", true), column("seconds", true), column("method", true)];
document.body.innerHTML = "<output>" + btoa(JSON.stringify(seen)) + "</output>";
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_click_sorts_numbers_as_numbers(run, tmp_path):
    path = report.write(run)
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{CLICK}</body>"))
    words = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/b",
    ]
    done = subprocess.run(
        [*words, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    text = done.stdout.partition("<output>")[2].partition("</output>")[0]
    # as words 100.0 would come first; the empty cell is last either way
    assert json.loads(base64.b64decode(text)) == [
        ["9.5", "20.0", "100.0", ""],
        ["100.0", "20.0", "9.5", ""],
        [NASTY, "dense", "random", "snip"],
    ]


def test_a_run_ends_with_its_best_figure_its_report_and_its_folder(run, capsys):
    session.finish_run(run)
    figure = run / "figures" / "accuracies.png"
    expected = [f"figure: {figure}", f"report: {run / 'report.html'}", f"run: {run}"]
    assert capsys.readouterr().out.splitlines() == expected
    figure.unlink()
    session.finish_run(run)  # resumed: the report is that of now
    other = f"figure: {run / 'figures' / 'a_search.png'}"
    assert capsys.readouterr().out.splitlines() == [other, *expected[1:]]
    assert "accuracies.png" not in (run / "report.html").read_text(encoding="utf-8")
    shutil.rmtree(run / "figures")
    session.finish_run(run)
    assert capsys.readouterr().out.splitlines() == expected[1:]


def test_a_report_that_cannot_be_written_costs_nothing_else(run, capsys, monkeypatch):
    session.finish_run(run)
    before = (run / "report.html").read_bytes()
    capsys.readouterr()

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(report, "write_atomically", full)
    session.finish_run(run)
    said = capsys.readouterr()
    figure = run / "figures" / "accuracies.png"
    assert said.out.splitlines() == [f"figure: {figure}", f"run: {run}"]
    (line,) = said.err.splitlines()
    assert line.startswith(f"no report of {run}: OSError: ") and "No space left" in line
    assert (run / "report.html").read_bytes() == before
    assert provenance.read(run)[-1]["ended"] > SESSION["ended"]


# --- metrics.csv ---------------------------------------------------------------------------------


def training(step, **more):
    return {"phase": "train", "chunk": 0, "seconds": 1.5, "seed": 0, "step": step, **more}


def test_the_table_of_metrics_has_a_row_for_each_run_and_step(tmp_path):
    assert rows.write_observations(tmp_path) == 0
    assert not (tmp_path / rows.OBSERVATIONS).exists()
    rows.append_metrics(tmp_path, training(10, loss=0.5), training(20, loss=np.nan))
    rows.append_metrics(tmp_path, {"phase": "train-rows", "seed": 0, "trained_accuracy": 0.9})
    rows.append_metrics(tmp_path, {"phase": "search", "chunk": 0, "step": 4, "energy": 0.25})
    assert rows.write_observations(tmp_path) == 3
    text = (tmp_path / rows.OBSERVATIONS).read_text(encoding="utf-8")
    assert text.splitlines() == [
        "phase,step,chunk,seconds,seed,loss,energy",
        "train,10,0,1.5,0,0.5,",
        "train,20,0,1.5,0,nan,",
        "search,4,0,,,,0.25",
    ]
    claimed = tmp_path / "parts" / "grid-00" / "1"
    claimed.mkdir(parents=True)
    claimed.with_name("1.claim").touch()
    rows.append_metrics(claimed, training(10, loss=0.5))  # the run's own metrics have it
    part = tmp_path / "nets" / "lenet5"
    part.mkdir(parents=True)
    rows.append_metrics(part, training(30, loss=0.125))
    assert rows.write_observations(tmp_path) == 4
    found = rows.read_csv(tmp_path / rows.OBSERVATIONS)
    assert [row["part"] for row in found] == [None, None, None, "nets/lenet5"]
    assert [row["loss"] for row in found if row["step"] in (10, 30)] == [0.5, 0.125]


# --- event files ---------------------------------------------------------------------------------


def test_event_files_without_their_library_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(event_files.importlib.util, "find_spec", lambda name: None)
    event_files.check(False)
    with pytest.raises(UserError, match=r"^--tensorboard: needs tensorboardX: pip install "):
        event_files.check(True)


def events(path):
    """The events of a file as `(step, {tag: value})`, and the version that it begins with."""
    from tensorboardX.proto.event_pb2 import Event

    content, found = io.BytesIO(path.read_bytes()), []
    while head := content.read(12):  # the length and its checksum
        (length,) = struct.unpack("<Q", head[:8])
        found.append(Event.FromString(content.read(length)))
        content.read(4)
    first, *others = found
    scalars = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in others]
    return first.file_version, scalars


@pytest.fixture
def followed(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(event_files, "_followed", set())
    event_files.follow(tmp_path)
    return tmp_path


def test_metrics_are_scalars_of_each_phase_and_run(followed, tmp_path_factory):
    name = {"method": "ticket", "source": "a/b", "seed": 0, "search_seconds": 3.25}
    rows.append_metrics(
        followed,
        {"phase": "train", "chunk": 0, **name, "step": 10, "loss": np.float32(0.5), "kept/fc1": 7},
        {"phase": "train", "chunk": 0, **name, "step": 20, "loss": 0.25, "front": [1, 2]},
        {"phase": "train", "chunk": 0, **name, "seed": 1, "step": 10, "loss": np.inf, "ok": True},
        {"phase": "train-rows", "seed": 0, "trained_accuracy": 0.9},
    )
    part = followed / "part"
    part.mkdir()
    rows.append_metrics(part, {"phase": "search", "step": 4, "energy": 0.125})
    home = followed / "tensorboard" / "train"
    found = {path.parent.name: events(path) for path in home.glob("*/*tfevents*")}
    version = "brain.Event:2"
    assert found == {
        "method=ticket,source=a-b,seed=0": (
            version,
            [(10, {"loss": 0.5, "kept/fc1": 7.0}), (20, {"loss": 0.25})],
        ),
        "method=ticket,source=a-b,seed=1": (version, [(10, {"loss": np.inf})]),
    }
    assert events(part / "tensorboard" / "search" / event_files.FILE)[1] == [(4, {"energy": 0.125})]
    other = tmp_path_factory.mktemp("other")  # of a run that didn't ask
    rows.append_metrics(other, training(10, loss=0.5))
    assert not (other / "tensorboard").exists()


def test_a_resumed_run_has_no_event_twice(followed):
    rows.append_metrics(followed, *(training(step, loss=step / 8) for step in (1, 2, 3)))
    rows.append_metrics(followed, {"phase": "search", "step": 4, "energy": 0.125})
    rows.keep_metrics(followed, lambda row: row["phase"] != "train" or row["step"] < 2)
    rows.append_metrics(followed, *(training(step, loss=step / 8) for step in (2, 3)))
    path = followed / "tensorboard" / "train" / "seed=0" / event_files.FILE
    assert [step for step, _ in events(path)[1]] == [1, 2, 3]
    assert len(events(followed / "tensorboard" / "search" / event_files.FILE)[1]) == 1


def test_a_run_that_has_the_rows_of_its_parts_can_drop_their_events(followed):
    claimed = followed / "parts" / "grid-00" / "1"
    claimed.mkdir(parents=True)
    for folder in (followed, claimed):
        rows.append_metrics(folder, training(1, loss=0.5))
    event_files.drop_parts(followed / "parts")
    (left,) = followed.rglob(event_files.FOLDER)
    assert left.parent == followed and (claimed / rows.METRICS).exists()


def test_the_frames_have_the_checksums_that_tensorboard_checks():
    masked = pytest.importorskip("tensorboardX.record_writer").masked_crc32c
    # RFC 3720, B.4: the CRC32C of 32 zero bytes is 0x8A9136AA; masked as TFRecord does
    crc = 0x8A9136AA
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked(bytes(32)) == expected
    framed = event_files._framed(bytes(32))
    assert framed[:8] == struct.pack("<Q", 32) and framed[12:44] == bytes(32)
    assert framed[44:] == struct.pack("<I", expected)
