"""Every net of the registry computes the same in PyTorch and in ONNX, and comes back."""

import functools

import jax
import numpy as np
import pytest
from exported import CASES, close, examples, logits, masked, random_ticket, small_net

from jaxtickets import nets
from jaxtickets.compress import graph, shrink, unit_selection
from jaxtickets.io import onnx_export, pytorch


@functools.cache
def case(name):
    """A small net, its ticket, images and their logits here."""
    net, shape = small_net(name)
    ticket, images = random_ticket(net, shape), examples(shape)
    return net, shape, ticket, images, logits(net, ticket, images)


def test_every_net_of_the_registry_is_tried():
    assert set(CASES) == set(nets.names())


@pytest.mark.parametrize("name", CASES)
def test_a_net_computes_the_same_in_pytorch_and_comes_back_bit_for_bit(name):
    torch = pytest.importorskip("torch")
    prune = pytest.importorskip("torch.nn.utils.prune")
    import torch_nets

    torch.set_num_threads(1)
    net, shape, ticket, images, expected = case(name)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    state = pytorch.to_state_dict(net, shape, ticket)
    pruned = [entry for entry in state if entry.endswith("_orig")]
    assert len(pruned) == sum(leaf.ndim > 1 for leaf in jax.tree.leaves(ticket.params))

    module = torch_nets.make(net, shape)
    names = [entry.removesuffix("_orig") for entry in state if not entry.endswith("_mask")]
    assert names == list(module.state_dict())  # in the order of the forward pass
    for entry in pruned:
        layer, _, leaf = entry.removesuffix("_orig").rpartition(".")
        prune.identity(module.get_submodule(layer), leaf)
    module.load_state_dict({entry: torch.from_numpy(array) for entry, array in state.items()})
    with torch.no_grad():
        close(module(inputs).numpy(), expected)
    back = pytorch.from_state_dict(net, shape, module.state_dict())
    jax.tree.map(np.testing.assert_array_equal, back, ticket._replace(rewind_step=0))


@pytest.mark.parametrize("name", CASES)
def test_a_net_computes_the_same_in_onnx_and_comes_back_bit_for_bit(name, tmp_path):
    pytest.importorskip("onnx")
    net, shape, ticket, images, expected = case(name)
    about = {"net": nets.to_json(net)}
    path = onnx_export.save_onnx(tmp_path / "net.onnx", net, ticket, shape, "NCHW", about)
    back, provenance = onnx_export.load_onnx(path)
    assert nets.from_json(provenance["net"]) == net
    jax.tree.map(np.testing.assert_array_equal, back, masked(ticket))
    run = session(path)
    inputs = images.transpose(0, 3, 1, 2)
    close(run(inputs), expected)
    close(run(inputs[:1]), expected[:1])


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_dense_and_shrunk_nets_compute_the_same_in_onnx(name, tmp_path):
    pytest.importorskip("onnx")
    net, shape, ticket, images, _ = case(name)
    traced = graph.trace(net, shape)
    norms = {group.name: np.arange(group.size, dtype=np.float32) for group in traced.wiring}
    units = unit_selection.by_layer(traced, norms, density=0.6)
    small, cut, _ = shrink.shrink(net, ticket, units, traced)
    assert sum(small.widths) < sum(net.widths)
    dense = ticket._replace(mask=jax.tree.map(np.ones_like, ticket.mask))
    for one, its in ((net, dense), (small, cut)):
        path = onnx_export.save_onnx(tmp_path / "net.onnx", one, its, shape)
        close(session(path)(images), logits(one, its, images))


def session(path):
    """`images -> logits` of an ONNX file."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: opened.run(["logits"], {"images": images})[0]
