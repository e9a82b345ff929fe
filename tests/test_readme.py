"""The README's Python runs as written."""

import re
from pathlib import Path

import matplotlib

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_users_own_net_and_arrays_go_from_search_to_plot_in_under_20_lines(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    given, composed = BLOCKS[1:3]
    assert len([line for line in composed.splitlines() if line.strip()]) < 20
    names: dict = {}
    exec(compile(given + composed, "README.md", "exec"), names)
    best = names["trace"].best_energy
    assert best.shape == (16, 500)
    assert float(best[:, -1].max()) < float(best[:, 0].min())  # every chain found better masks
    kept = names["masks"].count(names["trained"].mask, names["prunable"])
    assert int(kept) == 400
    assert (tmp_path / "chains.png").exists()


def test_the_two_lines_that_load_a_ticket_are_what_the_library_has():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) == 2
    names: dict = {}
    exec(lines[0], names)
    assert callable(names["load_ticket"])
    assert lines[1].startswith("ticket, provenance = load_ticket(")


def test_half_of_the_units_go_for_real(capsys):
    names: dict = {}
    exec(compile(BLOCKS[3], "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("(10, 25, 250)\n")
    assert "# (10, 25, 250)" in BLOCKS[3]
    small = names["small_ticket"]
    assert small.params["conv2"]["kernel"].shape == (5, 5, 10, 25)
    assert names["found"].before.parameters > 3.9 * names["found"].after.parameters
