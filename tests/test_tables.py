"""Tables: means with their spread, differences with their intervals, what was not measured."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from experiments.harness import pages, rows, structured_tables, tables
from experiments.imp_rewind import page as imp_rewind
from experiments.slimming import page as slimming
from experiments.ticket_grid import page as ticket_grid
from jaxtickets.io.errors import UserError


def row(method, density, trained, kept, **more):
    layers = {f"kept/{layer}/kernel": n for layer, n in zip(("fc1", "out"), kept, strict=True)}
    accuracies = {"untrained_accuracy": 0.1, "trained_accuracy": trained}
    return {"method": method, **more, "density": density, **accuracies, **layers}


PLAIN = [row("dense", 1.0, 0.9, (10, 4)), row("snip", 0.5, 0.8, (5, 2))]
CHECKED = [
    *PLAIN,
    row("snip", 0.5, 0.6, (7, 0), check="inverted"),
    row("snip", 0.5, 0.7, (6, 1), check="inverted"),
    row("inverted_grasp", 0.5, 0.5, (5, 2)),
]


def test_a_table_has_a_column_of_checks_where_there_are_any():
    plain, checked = (tables.methods(rows).splitlines() for rows in (PLAIN, CHECKED))
    assert " ".join(plain[0].split()) == "method density n untrained % trained % fc1 out"
    assert plain[2].split() == ["snip", "0.5", "1", "10.00", "80.00", "5", "2"]
    assert checked[0].split()[:4] == ["method", "check", "density", "n"]
    assert checked[2].split()[:3] == ["snip", "0.5", "1"]
    # mean and deviation of 60 and 70: 5 * sqrt(2) = 7.07; of 0 and 1 kept: 0.5, which rounds to 0
    inverted = ["snip", "inverted", "0.5", "2", "10.00", "±", "0.00", "65.00", "±", "7.07"]
    assert checked[3].split() == [*inverted, "6", "0"]
    assert checked[4].split()[:2] == ["inverted_grasp", "0.5"]


def test_a_table_says_how_searches_and_nets_do_on_the_validation_data():
    losses = {"search_loss": 0.01, "search_validation_loss": 0.25}
    both = [row("ticket", 0.5, 0.8, (5, 2), validation_accuracy=v, **losses) for v in (0.7, 0.8)]
    plain = {"validation_accuracy": 0.5, "search_loss": None}  # as a table read again has it
    lines = tables.methods([*both, row("snip", 0.5, 0.6, (5, 2), **plain)]).splitlines()
    head = "untrained % trained % validation % search loss on validation fc1 out"
    assert " ".join(lines[0].split()) == f"method density n {head}"
    found = [part.strip() for part in lines[1].split("  ") if part.strip()]
    assert found[3:7] == ["10.00 ± 0.00", "80.00 ± 0.00", "75.00 ± 7.07", "0.010 ± 0.000"]
    assert found[7:] == ["0.250 ± 0.000", "5", "2"]
    assert lines[2].split() == ["snip", "0.5", "1", "10.00", "60.00", "50.00", "5", "2"]


def test_a_layer_lost_in_any_seed_is_named_with_its_check():
    assert tables.lost(PLAIN) == []
    line = "a layer is lost: snip (inverted) at 0.5 keeps nothing in out/kernel"
    assert tables.lost(CHECKED) == [line]
    assert tables.methods(CHECKED).splitlines()[-1] == line


def test_a_spread_is_in_per_cent_unless_asked_otherwise():
    assert tables.spread([0.6, 0.7]) == "65.00 ± 7.07"
    assert tables.spread([0.6]) == "60.00"
    assert tables.spread([10, 14], 1, 0) == "12 ± 3"


def test_a_paired_difference_has_students_interval():
    """By hand: differences 1, 2, 3; mean 2, deviation 1, and t(0.975, 2) = 4.3027."""
    ours, theirs = {0: 1.5, 1: 4.0, 2: 3.0, 9: 8.0}, {0: 0.5, 1: 2.0, 2: 0.0, 7: 1.0}
    mean, half = tables.paired(ours, theirs)
    assert abs(mean - 2) < 1e-12
    assert abs(half - 4.302653 / 3**0.5) < 1e-5
    assert tables.difference(ours, theirs) == "+200.00 ± 248.41"
    assert tables.difference_range(ours, theirs) == "+200.00 (-48.41 to +448.41)"
    one = {3: 1.0}, {3: 0.0}
    assert tables.paired(*one) == (1.0, float("inf"))
    assert tables.difference(*one) == tables.difference_range(*one) == "+100.00"


def test_a_level_says_when_its_training_would_stop_early():
    stops = [{"early_stop_accuracy": a, "early_stop_step": s} for a, s in ((0.7, 100), (0.9, 300))]
    lines = imp_rewind.table([row("ticket", 0.5, 0.8, (5, 2), **stop) for stop in stops])
    head, line = (" ".join(text.split()) for text in lines.splitlines())
    assert head == "method density n untrained % trained % early stop % at step fc1 out"
    # mean and deviation of 70 and 90, of 100 and 300: 10 and 100 times the root of 2
    assert line.endswith("80.00 ± 0.00 80.00 ± 14.14 200 ± 141 5 2")


def test_a_grid_has_a_row_for_each_threshold_and_a_column_for_each_rewind_point():
    cells = [("ticket", 0, 0.9), ("ticket", 2, 0.8), ("shuffled", 0, 0.7), ("shuffled", 2, 0.6)]
    grid = [row("dense", 1.0, 0.95, (10, 4)), row("reinit", 0.1, 0.5, (1, 1), threshold=90)]
    grid += [row(m, 0.1, a, (1, 1), threshold=90, rewind=at) for m, at, a in cells]
    head, dense, cut = (line.split() for line in ticket_grid.table(grid).splitlines())
    assert " ".join(head).startswith("pruned % n dense % ticket, epoch 0 % ticket, epoch 2 %")
    assert dense == ["0", "1", "95.00"]
    assert cut == ["90", "1", "90.00", "80.00", "50.00", "70.00", "60.00"]


STRUCTURED = {
    **{"method": "annealed", "rate": 0.5, "after": "rewind", "dense_accuracy": 0.98},
    **{"cut_accuracy": 0.3, "trained_accuracy": 0.97, "validation_accuracy": 0.96},
    **{"train_steps": 7, "parameters": 10, "multiply_adds": 1e6, "bytes": 40},
    **{"bytes_on_disk": 2000, "milliseconds_1": 0.5, "milliseconds_128": 4.0},
    **{"speed_up_1": 2.0, "speed_up_128": 3.0, "units/fc1": 4},
}


def test_small_nets_stand_with_what_validation_says_of_them_and_of_their_search():
    searched = STRUCTURED | {"search_loss": 0.125, "search_validation_loss": 0.25}
    other = STRUCTURED | {"method": "random", "validation_accuracy": 0.9}
    lines = [line.split() for line in structured_tables.table([searched, other]).splitlines()]
    said = ["dense", "%", "cut", "%", "trained", "%", "validation", "%"]
    assert lines[0][4:17] == [*said, "search", "loss", "on", "validation", "steps"]
    assert lines[1][4:11] == ["98.00", "30.00", "97.00", "96.00", "0.125", "0.250", "7"]
    assert lines[2][4:9] == ["98.00", "30.00", "97.00", "90.00", "7"]
    assert "search" not in structured_tables.table([other])


def test_slim_nets_stand_with_what_validation_says_of_them():
    names = {"strength": 1e-4, "pass": 1, "sparse_accuracy": 0.95, "tuned_accuracy": 0.94}
    left = {"parameters_left": 0.5, "multiply_adds_left": 0.25}
    head, line = slimming.table([STRUCTURED | names | left]).splitlines()
    assert " ".join(head.split()).startswith(
        "penalty pass kept n sparse % cut % fine-tuned % validation % parameters"
    )
    assert line.split()[:8] == ["0.0001", "1", "0.5", "1", "95.00", "30.00", "94.00", "96.00"]


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_the_tables_of_a_page_are_what_its_kept_records_give(page):
    text = page.read_text(encoding="utf-8")
    assert text == pages.write(page)
    for block in pages.BLOCK.finditer(text):
        record = pages.ROOT / "experiments" / block[1] / "results" / f"{block[2]}.json"
        assert record.exists() or "\n```" not in block[0]  # no table before its run


def test_what_is_kept_of_runs_is_small_and_stands_in_a_page():
    kept = [path for path in pages.ROOT.glob("experiments/*/results/*")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages.pages())
    for path in kept:
        assert path.stat().st_size < pages.MOST_BYTES, path
        if path.suffix == ".json":
            assert f"<!-- table: {path.parent.parent.name}/{path.stem} -->" in text, path


def test_a_kept_figure_has_the_colours_of_the_run_s(tmp_path):
    """Text in 200 greys over most of it, a colour bar of 1 % and two marks of 9 pixels each."""
    pixels = np.full((200, 300, 3), 255, np.uint8)
    pixels[50:] = np.random.RandomState(0).randint(55, 255, (150, 300, 1))
    ramp = np.arange(200)
    pixels[:, 296:299] = np.stack([255 - ramp, np.abs(ramp - 100), ramp], -1)[:, None]
    pixels[10:13, 10:13], pixels[10:13, 20:23] = (255, 127, 14), (148, 103, 189)
    Image.fromarray(pixels).save(tmp_path / "run.png")
    pages.draw(tmp_path / "run.png", tmp_path / "kept.png")
    kept = np.asarray(Image.open(tmp_path / "kept.png").convert("RGB")).astype(int)
    assert np.abs(kept - pixels).max() < 16


def test_a_figure_is_shrunk_until_it_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_BYTES", 3000)
    noise = np.random.RandomState(0).randint(0, 255, (60, 60, 3), np.uint8)  # a byte a pixel
    Image.fromarray(noise).save(tmp_path / "run.png")
    pages.draw(tmp_path / "run.png", tmp_path / "kept.png")
    assert (tmp_path / "kept.png").stat().st_size < 3000
    assert 20 < Image.open(tmp_path / "kept.png").width < 60


def test_a_run_that_has_not_ended_has_no_table(tmp_path):
    session = {"command": "python -m experiments.x", "started": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "provenance.json").write_text(json.dumps({"sessions": [session | {"ended": None}]}))
    with pytest.raises(UserError, match="has not ended, --resume goes on with it"):
        pages.origin(tmp_path, {})


def test_time_in_which_several_processes_ran_counts_once():
    times = [("00:00", "00:10"), ("01:00", "01:01"), ("00:05", "00:20"), ("00:06", "00:07")]
    days = [[f"2026-01-01T{time}:00+00:00" for time in pair] for pair in times]
    assert pages._seconds(days) == 21 * 60


def test_a_command_is_told_without_the_places_of_its_run():
    said = "/venv/bin/python -m experiments.x --smoke --out=/tmp/run --dense_store d --noprepare"
    more = "--density=0.2,0.1 --resume --data_dir /data --tickets='a=b/*'"
    kept = "python -m experiments.x --smoke --density=0.2,0.1 '--tickets=a=b/*'"
    assert pages.command(f"{said} {more}") == kept


def test_a_page_keeps_the_columns_that_its_table_reads(tmp_path):
    def table(summary, costs):
        lines = [f"{row['method']} {row.get('rate') or ''}" for row in summary]
        return " ".join([*lines, *(str(row["seconds"]) for row in costs)])

    page = types.SimpleNamespace(RECORDS=("summary.csv",), OPTIONAL=("cost.csv",), table=table)
    summary = [{"method": "snip", "seed": 0, "rate": 0.1, "seconds": 2.0}]
    kept = {"summary.csv": [{"method": "snip", "seed": 0, "rate": 0.1}]}
    assert pages.needed(page, {"summary.csv": summary}) == kept

    with pytest.raises(UserError, match="no summary"):
        pages.records_of(page, tmp_path.joinpath)
    rows.write_csv(tmp_path / "summary.csv", summary)
    assert pages.records_of(page, tmp_path.joinpath) == {"summary.csv": summary}
    rows.write_csv(tmp_path / "cost.csv", [{"way": "in series", "seconds": 7.0}])
    found = pages.records_of(page, tmp_path.joinpath)
    assert pages.table_of(page, found) == "snip 0.1 7.0"
    assert pages.needed(page, found) == {**kept, "cost.csv": [{"seconds": 7.0}]}
