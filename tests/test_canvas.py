"""What all figures share."""

import pytest

from experiments.harness import canvas


@pytest.mark.parametrize("words, broken", [(3, False), (40, True)])
def test_a_title_wider_than_its_figure_is_broken_into_lines(tmp_path, words, broken):
    fig, _ = canvas.subplots(1, 1, (4, 3))
    title = fig.suptitle(" ".join(["error"] * words))
    assert (title.get_window_extent().width > fig.bbox.width) == broken
    assert canvas.save(fig, tmp_path, "drawn").exists()
    assert title.get_window_extent().width < fig.bbox.width
    assert ("\n" in title.get_text()) == broken
    assert title.get_text().split() == ["error"] * words


def test_a_figure_of_a_run_that_goes_on_is_drawn_if_time_has_passed(tmp_path, monkeypatch):
    now, drawn = [100.0], []
    monkeypatch.setattr(canvas.time, "monotonic", lambda: now[0])

    def draw(folder):
        drawn.append(now[0])
        now[0] += 5  # what drawing takes

    draw_if_due = canvas.now_and_then(draw, seconds=30)
    for now[0] in (129.0, 130.0, 164.0, 165.0, 190.0):  # 30 after 100; 30 after 135
        draw_if_due(tmp_path)
    assert drawn == [130.0, 165.0]


def test_a_single_seed_has_no_error_bars_and_no_deviation():
    assert canvas.deviations([[1.0, 3.0], [5.0]]) == [2**0.5, 0.0]
    assert canvas.deviations([[1.0], [5.0]]) is None
    mean, bars = canvas.reach([[1.0, 3.0], [5.0]])
    assert mean.tolist() == [2, 5] and bars.tolist() == [[1, 0], [1, 0]]
    assert canvas.reach([[1.0], [5.0]])[1] is None
    assert canvas.over_seeds(3) == "n = 3 seeds, mean ± standard deviation"
    assert canvas.over_seeds(1) == "1 seed"
