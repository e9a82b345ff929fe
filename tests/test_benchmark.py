"""The benchmark: what it counts, what it asks for, and that its rival does the same work."""

import os
import random
from functools import partial

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import (
    big_nets,
    measured,
    packed_steps,
    photographs,
    shrunk_nets,
    speeds,
    torch_rival,
    workloads,
)
from experiments.benchmark.figure import draw_benchmark, panels
from experiments.benchmark.workloads import Work
from experiments.harness import timing
from jaxtickets import losses, masks, nets, optimizers, training
from jaxtickets.compress import graph, output_check, shrink
from jaxtickets.dynamic.static import masked
from jaxtickets.io.errors import UserError
from jaxtickets.search import energies
from jaxtickets.search.incremental_energy import Layer
from jaxtickets.types import Split, Ticket

WEIGHTS = 784 * 300 + 300 * 100 + 100 * 10

# --- what is counted -----------------------------------------------------------------------------


def test_a_training_step_counts_three_products_a_layer_but_two_in_the_first():
    model = nets.functional(nets.make("lenet300_100", use_bias=False), (28, 28, 1))
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    work = workloads.training_step("lenet300_100", params, 60, moments=2)
    assert work.operations == 2 * 60 * (2 * 235_200 + 3 * 31_000)
    # weights, gradients and two moments, each read and written, a byte of the mask, the images
    assert work.traffic == (4 * 8 + 1) * WEIGHTS + 60 * 784
    plain = workloads.training_step("lenet300_100", params, 60, moments=0, masked=False)
    assert plain.traffic == 4 * 4 * WEIGHTS + 60 * 784


def test_an_evaluation_by_difference_counts_what_a_swap_reaches():
    layer = Layer("fc1/kernel", 784, 300, *[lambda *_: None] * 2)
    work = workloads.difference_evaluation(layer, WEIGHTS, size=100, steps=50)
    # of 200 switched weights, 235,200 / 266,200 are the layer's: 177 inputs, and as many units
    rows = 300 + 177 + 177 + (784 + 300) / 50
    assert work.traffic == pytest.approx(5 * WEIGHTS + 4 * 2000 * rows)
    assert work.operations == pytest.approx(2 * 2000 * (31_000 + 235_200 / 50))
    most = workloads.difference_evaluation(layer, WEIGHTS, size=50_000, steps=50)
    assert most.traffic == pytest.approx(5 * WEIGHTS + 4 * 2000 * (300 + 300 + 784 + 21.68))
    assert Work(2.0, 3.0).times(4) == (8.0, 12.0)


@pytest.mark.parametrize(
    ("products", "memory", "bound"),
    [
        (0.5, 0.2, "matrix products"),
        (0.3, 0.4, "memory"),
        (0.3, 0.2, "overhead"),
        (0.9, 1.2, "memory"),
    ],
)
def test_a_row_is_bound_by_the_largest_share(products, memory, bound):
    assert measured.bound_by(products, memory) == bound


def test_shares_are_of_the_first_call_and_of_the_better_rates(monkeypatch):
    rates = iter([timing.Rates(100.0, 10.0), timing.Rates(50.0, 40.0)])
    monkeypatch.setattr(timing, "rates", lambda devices: next(rates))
    monkeypatch.setattr(timing, "best_times", lambda calls, repeats: [2.0, 4.0])
    found = measured.timed([int, int], Work(150.0, 8.0))
    assert found == ([2.0, 4.0], 0.75, 0.1)
    row = measured.compared(found.row("name", 3.0, "s"), 0.75, "all", 0.75)
    assert (row.holds, row.products, row.bound) == (True, 0.75, "matrix products")
    assert measured.compared(row, 0.74, "all", 0.75).holds is False


def test_a_smaller_nets_row_says_what_is_left_and_how_far_its_outputs_are(monkeypatch):
    monkeypatch.setitem(shrunk_nets.BARS, "lenet300_100", 0.001)
    fast, same = shrunk_nets.compare("lenet300_100", (28, 28, 1), repeats=1)
    # 784 · 150 + 150 · 50 + 50 · 10 of 266,200
    assert fast.against == "times as fast as the whole net, 0.47 of its multiply-adds"
    assert fast.value > 0 and fast.ratio > 0 and fast.holds
    assert same.value < 1e-5 and same.holds
    monkeypatch.setattr(shrunk_nets.output_check, "output_difference", lambda *_: 2e-4)
    _, other = shrunk_nets.compare("lenet300_100", (28, 28, 1), repeats=1)
    assert other.holds is False
    assert set(shrunk_nets.BARS) <= set(nets.names())


def test_packed_steps_end_where_dense_ones_do(monkeypatch):
    monkeypatch.setattr(packed_steps, "STEPS", 3)
    monkeypatch.setattr(packed_steps, "BATCH", 10)
    monkeypatch.setattr(packed_steps, "IMAGES", 40)
    monkeypatch.setattr(packed_steps.torch_rival, "installed", lambda: False)
    monkeypatch.setattr(timing, "rates", lambda devices: timing.Rates(1e12, 1e12))
    made = packed_steps.calls("lenet300_100", 0.02)
    assert made.layers == torch_rival.LAYERS
    dense = workloads.training_step("lenet300_100", {"all": np.ones(WEIGHTS + 410)}, 10, 1)
    assert made.work.operations == pytest.approx(3 * 0.02 * dense.operations)
    packed, dense = made.packed(), made.dense()
    assert int(packed.step) == int(dense.step) == 3
    for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    (row,) = packed_steps.compare("lenet300_100", 0.02, repeats=1)
    assert row.name == "a step of lenet300_100, 98 % sparse, batch 10"
    assert row.bar == 2 and row.against == "times as fast as the masked dense step"
    assert {name for name, _ in packed_steps.BARS} <= set(packed_steps.NETS)


def test_a_net_with_two_forms_is_made_for_its_images(monkeypatch):
    made = []
    monkeypatch.setattr(shrunk_nets.graph, "trace", lambda net, shape: made.append(net) or 1 / 0)
    for shape in (nets.image_shape("alexnet"), (32, 32, 3)):
        with pytest.raises(ZeroDivisionError):
            next(shrunk_nets.compare("alexnet", shape, repeats=1))
    assert [net.form for net in made] == ["large", "small"]


def test_both_convolutions_are_timed_alike_and_in_turns(monkeypatch):
    made: list[str] = []
    clock = iter([0, 4, 10, 18, 20, 22, 30, 36])  # seconds: 4, 8, 2, 6
    monkeypatch.setattr(
        speeds, "convolve", lambda name, conv, *_: (lambda: made.append(conv), Work(1.0, 1.0))
    )
    monkeypatch.setattr(timing, "rates", lambda devices: timing.Rates(10.0, 10.0))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    row = speeds.convolution("lenet5", 128)
    assert made == ["auto", "lax"] * 3
    assert (row.value, row.ratio) == (1000.0, 3.0)  # two steps in 2 seconds, and in 6


def test_outputs_of_another_cut_are_far_apart():
    net = nets.make("lenet300_100", widths=(8, 6))
    traced = graph.trace(net, (4, 4, 1))
    params, stats = nets.functional(net, (4, 4, 1)).init(jax.random.key(0))
    whole = Ticket(params, stats, masks.ones(params), jnp.int32(0))
    units, others = ({"fc1": np.arange(8) % 2 == i, "fc2": np.arange(6) < 3} for i in (0, 1))
    small, cut, _ = shrink.shrink(net, whole, units, traced)
    assert output_check.output_difference(net, whole, units, traced, small, cut) < 1e-5
    assert output_check.output_difference(net, whole, others, traced, small, cut) > 0.1


def test_calls_are_made_in_turns_after_one_each_and_the_fastest_counts(monkeypatch):
    made: list[str] = []
    clock = iter([0, 5, 10, 12, 20, 23, 30, 34])  # seconds: 5, 2, 3, 4
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = timing.best_times([lambda: made.append("a"), lambda: made.append("b")], repeats=2)
    assert made == ["a", "b"] * 3
    assert times == [3, 2]


def test_a_byte_of_memory_counts_when_it_is_read_and_when_it_is_written(monkeypatch, cpus):
    monkeypatch.setattr(timing, "LENGTH", 1024)

    def best_time(call):
        first, second = call(), call()
        assert len(first) == len(second) == 2
        assert float(second[0][0]) == 1  # an even number of passes changes no sign
        return 2.0

    monkeypatch.setattr(timing, "best_time", best_time)
    assert timing.memory_rate(cpus[:2]) == 2 * timing.PASSES * 2 * 4096 / 2


def test_photographs_are_counted_over_an_epoch_in_one_thread_and_in_several(monkeypatch):
    calls = []

    def best_times(two):
        calls.append([call() for call in two])
        return [4.0, 2.0]

    monkeypatch.setattr(timing, "best_times", best_times)
    monkeypatch.setattr(photographs, "CROPS", {"crop": photographs.CROPS["random crop to 64"]})
    alone, together = photographs.rows(32, 80, 64, threads=3)
    assert [[len(labels) for labels in epoch] for epoch in calls[0]] == [[16, 16], [16, 16]]
    assert (alone.value, alone.name[-8:]) == (8, "1 thread")
    assert (together.value, together.ratio, together.name[-9:]) == (16, 2, "3 threads")


def test_a_big_nets_step_is_timed_and_takes_at_least_its_state(monkeypatch):
    monkeypatch.setattr(big_nets.timing, "best_time", lambda call, repeats: bool(call()) and 0.5)
    parts = {"float32, 4 parts": big_nets.VARIANTS["float32, 4 parts"]}
    monkeypatch.setattr(big_nets, "VARIANTS", parts)
    speed, memory = big_nets.rows(["alexnet"], [32], batch=4)
    assert (speed.value, speed.unit, speed.ratio) == (8, "images/s", 1)
    # weights and momentum in float32, and the mask
    assert memory.value > 2.4e6 * 9 / 2**20 and memory.unit == "MiB"


# --- what is asked for ---------------------------------------------------------------------------


def test_the_rivals_group_is_left_out_where_there_is_none_unless_it_is_asked_for():
    assert set(benchmark.GROUPS) - set(benchmark.wanted([], rival=False)) == {"torch"}
    assert benchmark.wanted([], rival=True) == list(benchmark.GROUPS)
    assert benchmark.wanted(["level", "torch"], rival=True) == ["level", "torch"]
    with pytest.raises(UserError, match="PyTorch is not installed"):
        benchmark.wanted(["level", "torch"], rival=False)


def test_bad_input_ends_in_one_line_before_work_starts(tmp_path, cache):
    there = torch_rival.installed()
    cases = {
        "--nets=resnet19": "unknown net 'resnet19': did you mean resnet18?",
        "--pixels=16": "--pixels=16: must be 32 or more",
        "--only=anealing": "unknown group 'anealing': did you mean annealing?",
        f"--figure={tmp_path}/none/x.png": f"there is no folder {tmp_path}/none",
        f"--figure={tmp_path}/x.foo": "x.foo: must end in .",
        f"--json={tmp_path}": f"--json={tmp_path}: is a folder, name a file in it",
    } | ({} if there else {"--only=torch": "--only=torch: PyTorch is not installed"})
    for (status, said), words in zip(
        commands.answers([["benchmark", case] for case in cases], cache),
        cases.values(),
        strict=True,
    ):
        assert status == 1
        assert len(said.splitlines()) == 1
        assert words in said


# --- the figure ----------------------------------------------------------------------------------


def test_ratios_against_the_same_thing_share_a_panel(tmp_path):
    row = measured.Row("a", 2.0, "s")
    share = measured.compared(row, 0.8, "share", 0.7)
    rows = [
        row,  # no ratio
        measured.compared(row._replace(name="no bar and no bound"), 2.0, "share"),
        share,
        measured.compared(row._replace(name="b", bound="memory"), 3.0, "times, one way"),
        measured.compared(row._replace(name="b", bound="memory"), 4.0, "times, another", 5.0),
    ]
    table = [{"group": "any", **row._asdict()} for row in rows]
    found = panels(table)
    assert {name: len(rows) for name, rows in found.items()} == {"share": 1, "times": 2}
    assert draw_benchmark(table, tmp_path / "x.png").stat().st_size > 10_000
    assert draw_benchmark([], tmp_path / "none.svg").exists()


# --- the rival -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    found = pytest.importorskip("torch", reason="the rival is optional")
    found.set_num_threads(1)
    return found


def net(**attributes):
    model = nets.functional(nets.make("lenet300_100", **attributes), (28, 28, 1))
    return model, model.init(jax.random.key(0))[0]


@pytest.fixture(scope="module")
def problem(torch):
    """Our net, parameters, a mask, and normalised images with labels."""
    model, params = net()
    draw = np.random.default_rng(0)
    images = draw.standard_normal((20, 28, 28, 1)).astype("f")
    mask = masks.random(jax.random.key(1), params, masks.prunable(params), 53_240)
    return model, params, mask, Split(images, draw.integers(0, 10, 20).astype("i"))


def theirs(torch, kernels):
    """Our kernels as PyTorch's weights."""
    return [torch.tensor(np.asarray(kernels[name]["kernel"]).T.copy()) for name in NAMES]


NAMES = ("fc1", "fc2", "out")


def flat(torch, weights):
    return torch.cat([weight.flatten() for weight in weights])


def test_the_same_mask_and_weights_have_the_same_energy(torch, problem):
    _, _, mask, data = problem
    model, params = net(use_bias=False)
    mask = {name: {"kernel": mask[name]["kernel"]} for name in NAMES}
    ours = energies.fixed(model, params, {}, *data, losses.cross_entropy)
    columns = torch.tensor(data.images.reshape(20, 784).T.copy())
    labels = torch.tensor(data.labels).long()
    kept = flat(torch, theirs(torch, masks.apply(mask, params)))
    layers = torch_rival.layers_of(kept)
    expected = float(ours.evaluate(jax.random.key(0), mask))
    assert torch_rival.energy(layers, columns, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("by_difference", [False, True])
def test_the_rivals_chains_are_where_they_say(torch, by_difference, monkeypatch):
    monkeypatch.setattr(torch_rival, "IMAGES", 50)
    torch.manual_seed(0)
    random.seed(0)
    call = torch_rival.anneal(2, 30, 300, by_difference)
    before = [chain.masked.clone() for chain in call()]
    torch.manual_seed(0)  # the images and labels that the call has drawn
    columns, labels = torch.randn(784, 50), torch.randint(10, (50,))
    for first, chain in zip(before, call(), strict=True):
        layers = torch_rival.layers_of(chain.masked)
        kept = set(torch.nonzero(chain.masked).flatten().tolist())
        assert kept == set(chain.order[:53_240].tolist())
        assert len(chain.order.unique()) == WEIGHTS
        energy = torch_rival.energy(layers, columns, labels).item()
        assert chain.energy == pytest.approx(energy, rel=1e-4)
        lowest = torch_rival.energy(torch_rival.layers_of(chain.best), columns, labels).item()
        assert chain.best_energy == pytest.approx(lowest, rel=1e-4)
        assert chain.best_energy <= chain.energy
        assert not torch.equal(first, chain.masked)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_steps_from_the_same_weights_end_at_the_same_weights(torch, name, problem):
    model, params, mask, data = problem
    rate = {"momentum": 0.1, "adam": 1.2e-3}[name]
    optimizer = masked(optimizers.optimizer(name, jnp.float32(rate)), mask)
    state = training.init(params, {}, optimizer)
    loss = losses.classification(model, lambda images: images)
    step = jax.jit(partial(training.step, loss, optimizer))
    weights = theirs(torch, masks.apply(mask, params))
    biases = [torch.tensor(np.array(params[layer]["bias"])) for layer in NAMES]
    kept = [torch.tensor(np.asarray(mask[layer]["kernel"]).T.astype("f")) for layer in NAMES]
    net, parameters = torch_rival.begin(torch_rival.Net(weights, biases, kept))
    descent = torch_rival.optimizer(name, parameters)
    images, labels = torch.tensor(data.images.reshape(20, 784)), torch.tensor(data.labels).long()
    for _ in range(3):
        state, _ = step(jax.random.key(0), state, data)
        torch_rival.step(net, descent, images, labels)
    for layer, weight, bias, start in zip(NAMES, net.weights, net.biases, weights, strict=True):
        ours = state.params[layer]
        assert abs(weight.detach() - start).max() > 1e-3  # they went somewhere
        np.testing.assert_allclose(weight.detach().numpy().T, ours["kernel"], atol=3e-6)
        np.testing.assert_allclose(bias.detach().numpy(), ours["bias"], atol=3e-6)


def note(runs, folder):
    """A call that leaves a file that says for how many runs it was made."""

    def call():
        name = folder / f"{os.getpid()}"
        name.write_text(name.read_text() + "again" if name.exists() else f"{runs}")

    return call


def test_processes_share_the_runs_and_keep_what_they_made(torch, tmp_path):
    with torch_rival.processes(2, 1, note, 5, tmp_path) as call:
        call()
        call()
    said = sorted(file.read_text() for file in tmp_path.iterdir())
    assert said == ["2again", "3again"]
