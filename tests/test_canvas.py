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
