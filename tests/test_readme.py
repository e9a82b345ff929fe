"""The README and the pages: their Python runs as written, their commands are understood."""

import contextlib
import functools
import io
import re
import shlex

import commands
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from experiments.harness import pages
from jaxtickets import data, masks, nets
from jaxtickets.io import tickets
from jaxtickets.types import Ticket

TEXTS = {page: page.read_text(encoding="utf-8") for page in pages.pages()}
BLOCKS = [
    block
    for text in TEXTS.values()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


def block(words):
    """The one block of Python in which these words stand."""
    (found,) = [text for text in BLOCKS if words in text]
    return found


def test_a_users_own_net_and_arrays_go_from_search_to_plot_in_under_20_lines(
    tmp_path, monkeypatch, capsys
):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    given, composed = block("class Net(nn.Module)"), block("def chain(key)")
    assert len([line for line in composed.splitlines() if line.strip()]) < 20
    names: dict = {}
    exec(compile(given + composed, "README.md", "exec"), names)
    best = names["trace"].best_energy
    assert best.shape == (16, 500)
    assert float(best[:, -1].max()) < float(best[:, 0].min())  # every chain found better masks
    kept = names["masks"].count(names["trained"].mask, names["prunable"])
    assert int(kept) == 400
    assert (tmp_path / "chains.png").exists()

    exec(compile(block("for level in range"), "README.md", "exec"), names)  # by magnitude
    said = [line.split("% left: ") for line in capsys.readouterr().out.splitlines()]
    assert [float(left) for left, _ in said[:3]] == [100.0, 80.0, 64.0]
    assert len(said) == 10
    assert float(said[0][1].rstrip("%")) > 90  # of the last batch
    total = names["masks"].size(names["params"], names["prunable"])
    assert int(names["masks"].count(names["mask"], names["prunable"])) == round(total * 0.8**10)

    own = block("granet.granet(")  # the same net in a loop of one's own
    assert len([line for line in own.splitlines() if line.strip()]) <= 20
    exec(compile(own, "README.md", "exec"), names)
    assert capsys.readouterr().out == "200\n"
    optimizer, training = names["optimizer"], names["training"]
    begin = training.init(names["params"], names["stats"], optimizer)
    end, _ = jax.jit(
        lambda state: training.advance(
            names["loss"], optimizer, jax.random.key(0), state, names["batches"]
        )
    )(begin)
    jax.tree.map(np.testing.assert_array_equal, names["state"].mask, end.mask)


def test_a_saved_ticket_is_loaded_and_evaluated(tmp_path):
    net = nets.make("lenet5_lecun")
    params, stats = nets.functional(net, (28, 28, 1)).init(jax.random.key(0))
    mask = masks.random(jax.random.key(1), params, masks.prunable(params), 5000)
    said = {"net": nets.to_json(net), "dataset": "mnist5k"}
    tickets.save_ticket(tmp_path / "ticket", Ticket(params, stats, mask, jnp.int32(0)), said)
    path = "runs/sa_search/.../tickets/ticket-density0.1-seed0"
    loaded = block("load_ticket(")
    assert path in loaded
    names: dict = {}
    exec(loaded.replace(path, str(tmp_path / "ticket")), names)
    assert names["logits"].shape == (1000, 10)
    images = (names["held"].test.images / 255 - 0.1307) / 0.3081
    expected = net.apply({"params": masks.apply(mask, params)}, images, train=False)
    np.testing.assert_allclose(names["logits"], expected, atol=2e-3)


@functools.cache
def smaller():
    """The names that the block on smaller nets defines, and what it prints."""
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block("unit_selection.by_layer("), "README.md", "exec"), names)
    return names, printed.getvalue()


def test_half_of_the_units_go_for_real():
    names, printed = smaller()
    assert printed.startswith("(10, 25, 250)\n")
    assert "# (10, 25, 250)" in block("unit_selection.by_layer(")
    small = names["small_ticket"]
    assert small.params["conv2"]["kernel"].shape == (5, 5, 10, 25)
    assert names["found"].before.parameters > 3.9 * names["found"].after.parameters


def test_the_small_net_goes_to_pytorch_and_onnxruntime(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    names = dict(smaller()[0])
    exec(compile(block("torch.nn.ModuleDict("), "README.md", "exec"), names)
    assert names["logits"].shape == (5, 10)
    kernel = names["small_ticket"].params["out"]["kernel"]
    np.testing.assert_array_equal(names["module"]["out"].weight.detach().numpy().T, kernel)


def test_a_ticket_is_opened_elsewhere_without_jax(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    net = nets.make("lenet300_100")
    model = nets.functional(net, (28, 28, 1))
    params, stats = model.init(jax.random.key(0))
    mask = masks.random(jax.random.key(1), params, masks.prunable(params), 5000)
    names: dict = {"ticket": Ticket(params, stats, mask, jnp.int32(0)), "nets": nets, "data": data}
    names |= {"provenance": {"net": nets.to_json(net)}, "held": data.load("mnist5k")}
    exec(block("save_portable("), names)
    images = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype("f")
    expected = np.asarray(model.apply(masks.apply(mask, params), stats, images)[0])
    elsewhere: dict = {"normalised": images.transpose(0, 3, 1, 2)}
    for words in ("Sequential(layers)", '"ticket.onnx")', "np.unpackbits("):
        assert "jax" not in block(words)
        exec(block(words), elsewhere)
    module, inputs = elsewhere["module"], torch.from_numpy(elsewhere["normalised"].copy())
    np.testing.assert_allclose(module(inputs).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(elsewhere["logits"], expected, atol=1e-5)
    np.testing.assert_array_equal(elsewhere["mask"], mask["fc1"]["kernel"])


COMMAND = r"python -m experiments\.([a-z_]+)\b(?!\.)((?:[^\n\\`]|\\\n)*)"


def stated():
    """Each command of the README and the pages: an experiment and its arguments."""
    found = []
    for text in TEXTS.values():
        for experiment, words in re.findall(COMMAND, text):
            words = words.replace("\\\n", " ")
            if words.count("'") % 2:  # the last is of what the command stands in
                words = words.rpartition("'")[0]
            found.append([experiment, *shlex.split(words, comments=True)])
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def test_the_commands_of_all_pages_pass_all_checks_that_come_before_work(cache):
    cases = stated()
    folders = (pages.ROOT / "experiments").glob("*/__main__.py")
    assert {case[0] for case in cases} == {folder.parent.name for folder in folders}
    assert len(cases) > 60
    # the tickets that some take are of other runs
    alone = [[word for word in case if not word.startswith("--tickets=")] for case in cases]
    for case, (status, said) in zip(
        cases, commands.answers(alone, cache, commands.ACCEPT_ALONE), strict=True
    ):
        without_torch = "PyTorch is not installed" in said
        assert status == commands.ACCEPTED or without_torch, (case, said)


def test_the_page_on_running_lists_every_net_and_data_set():
    text = TEXTS[pages.ROOT / "experiments" / "README.md"]
    for title, names in (("Nets", nets.names()), ("Data", data.NAMES)):
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        assert {name for name in names if f"`{name}`" not in section} == set()


def test_links_and_pictures_of_all_pages_are_there():
    for page, text in TEXTS.items():
        for place in re.findall(r"\]\((?!http)([^)#]*)(?:#[^)]*)?\)", text):
            assert (page.parent / place).exists(), (page, place)


def test_every_experiment_has_a_page_and_the_readme_is_short():
    for command in (pages.ROOT / "experiments").glob("*/__main__.py"):
        page = command.parent / "README.md"
        assert TEXTS[page].startswith("# ")
        assert f"({page.relative_to(pages.ROOT).as_posix()})" in TEXTS[pages.ROOT / "README.md"]
    assert len(TEXTS[pages.ROOT / "README.md"].splitlines()) < 250
