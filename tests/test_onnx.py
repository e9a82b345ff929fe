"""ONNX: each operation in onnxruntime against JAX; what can't be exported, and damaged files."""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import close, examples, logits, random_ticket, small_net
from flax import linen as nn
from jax import lax

from jaxtickets import nets
from jaxtickets.io import onnx_export, onnx_operations
from jaxtickets.io.errors import UserError
from jaxtickets.types import Ticket

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

NET, SHAPE = small_net("lenet5")
TICKET = random_ticket(NET, SHAPE)


class Function(nn.Module):
    """A net without parameters."""

    function: Callable

    @nn.compact
    def __call__(self, x):
        return self.function(x)


def run(content, inputs, outputs=("logits",)):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), inputs)


def windowed(operation, start, x):
    sides = ((0, 0), (1, 0), (2, 1), (0, 0))
    return lax.reduce_window(x, start, operation, (1, 2, 3, 1), (1, 2, 1, 1), sides)


TOKEN = np.arange(3, dtype="f")


# primitive: a function of images `[n, 4, 5, 3]` that uses it
FUNCTIONS = {
    "abs": jnp.abs,
    "add": lambda x: x + x[:, :1],
    "and": lambda x: (x > 0) & (x < 1),
    "broadcast_in_dim": lambda x: x + jnp.broadcast_to(TOKEN, (1, 4, 5, 3)),
    "clamp": lambda x: lax.clamp(np.float32(-0.5), x, np.float32(0.3)),
    "concatenate": lambda x: jnp.concatenate(
        [jnp.broadcast_to(TOKEN, (len(x), 1, 5, 3)), lax.abs(x)], 1
    ),
    "conv_general_dilated": lambda x: lax.conv_general_dilated(
        x,
        np.arange(36, dtype="f").reshape(2, 3, 1, 6),
        (1, 2),
        ((0, 1), (2, 0)),
        rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    ),
    "convert_element_type": lambda x: (3 * x).astype(jnp.int32),
    "copy": lambda x: jnp.array(x, copy=True),
    "cos": jnp.cos,
    "div": lambda x: 1 / (x * x + 1),
    "dot_general": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x + 1),
    "eq": lambda x: x.astype(jnp.int32) == 1,
    "erf": lax.erf,
    "exp": jnp.exp,
    "ge": lambda x: x >= 0.5,
    "gt": lambda x: x > 0.5,
    "integer_pow": lambda x: x**3,
    "le": lambda x: x <= 0.5,
    "log": lambda x: lax.log(x * x + 1),
    "logistic": jax.nn.sigmoid,
    "lt": lambda x: x < 0.5,
    "max": lambda x: jnp.maximum(jnp.maximum(x, 0.0), -x),
    "min": lambda x: jnp.minimum(x, 0.5),
    "mul": lambda x: x * TOKEN[None, None, None],
    "ne": lambda x: x.astype(jnp.int32) != 1,
    "neg": lambda x: -x,
    "not": lambda x: ~(x > 0),
    "or": lambda x: (x > 1) | (x < 0),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 1)), constant_values=7),
    "pow": lambda x: lax.pow(lax.abs(x), np.full((), 1.5, "f")),
    "reduce_max": lambda x: x.reshape(len(x), 2, 2, 5, 1, 3).max((2, 4)) + x.max(2)[:, :2, None],
    "reduce_min": lambda x: x.min((1, 3)),
    "reduce_prod": lambda x: x.prod(2),
    "reduce_sum": lambda x: jnp.broadcast_to(x[:, :1], x.shape).sum(1),
    "reduce_window_max": functools.partial(windowed, lax.max, -np.inf),
    "reduce_window_sum": functools.partial(windowed, lax.add, 0.0),
    "reshape": lambda x: x.reshape(-1, 15),
    "rsqrt": lambda x: lax.rsqrt(x * x + 1),
    "select_n": lambda x: jnp.where(x > 0, x, 0.1),
    "sign": jnp.sign,
    "sin": jnp.sin,
    "slice": lambda x: x[:, 1:4:2, :3],
    "sqrt": lambda x: lax.sqrt(lax.abs(x)),
    "square": lambda x: lax.square(x),
    "squeeze": lambda x: lax.squeeze(x[:, :, :1], (2,)),
    "stop_gradient": lax.stop_gradient,
    "sub": lambda x: 1 - x,
    "tanh": jnp.tanh,
    "transpose": lambda x: x.transpose(0, 3, 1, 2) @ x.transpose(0, 3, 2, 1),
}
NOT_TRACED = {"copy", "stop_gradient"}
"""Operations that a trace may leave out."""


def test_each_operation_has_a_test():
    assert set(FUNCTIONS) == set(onnx_operations.RULES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_computes_the_same_in_onnx(name):
    images = examples((4, 5, 3), 4)
    net, ticket = Function(FUNCTIONS[name]), Ticket({}, {}, {}, np.int32(0))
    for layout in ("NHWC", "NCHW"):
        model = onnx_export.to_onnx(net, ticket, (4, 5, 3), layout)
        inputs = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
        (found,) = run(model.SerializeToString(), {"images": inputs})
        expected = np.asarray(FUNCTIONS[name](images))
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    traced = str(jax.make_jaxpr(FUNCTIONS[name])(images))
    assert re.search(rf"\b{name}\b", traced) or name in NOT_TRACED


class Several(nn.Module):
    @nn.compact
    def __call__(self, words, x):
        table = self.param("embedding", nn.initializers.ones, (4, 3))
        y = nn.Dense(4, name="layer")(x) @ table
        return y, y @ table.T + words.astype(jnp.float32)[:, :1]


def test_several_inputs_and_outputs_and_a_leaf_in_two_forms():
    given = (jax.ShapeDtypeStruct((2,), "int32"), jax.ShapeDtypeStruct((5,), "float32"))
    ticket = random_ticket(Several(), given)
    words = np.array([[1, 2], [3, 4], [5, 6]], "i4")
    x = examples((5,), 3)
    model = onnx_export.to_onnx(Several(), ticket, given)
    assert [one.name for one in model.graph.output] == ["logits", "logits.2"]
    found = run(model.SerializeToString(), {"images": words, "images.2": x}, ["logits", "logits.2"])
    params = jax.tree.map(lambda w, bits: w * bits, ticket.params, ticket.mask)
    expected = Several().apply({"params": params}, words, x)
    for one, other in zip(found, expected, strict=True):
        close(one, np.asarray(other))


def test_the_graph_is_one_that_others_expect():
    model = onnx_export.to_onnx(NET, TICKET, SHAPE, "NCHW")
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("Conv") == 2 and operations.count("MaxPool") == 2
    assert operations.count("Relu") == 3 and operations.count("MatMul") == 2
    sizes = {one.name: list(one.dims) for one in model.graph.initializer}
    assert sizes["conv1/kernel"] == [3, 2, 5, 5]  # [outputs, inputs, h, w]
    (images,) = model.graph.input
    open_size, *fixed = images.type.tensor_type.shape.dim
    assert open_size.dim_param == "batch" and [d.dim_value for d in fixed] == [2, 16, 20]
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)


def refused(function, reason, shape=(4, 5, 3)):
    with pytest.raises(ValueError, match=reason) as error:
        onnx_export.to_onnx(Function(function), Ticket({}, {}, {}, np.int32(0)), shape)
    assert "\n" not in str(error.value)


def test_what_has_no_counterpart_is_named():
    refused(lambda x: jnp.sort(x, 1), r"'sort' in Function has no counterpart in ONNX here")
    refused(
        lambda x: x / float(len(x)), "a number of 'div' in Function depends on the batch's size"
    )
    refused(lambda x: x[1:], "'slice' in Function has a size that grows with the batch by more")
    refused(lambda x: x[: len(x) // 2 * 0 + 1], "'slice' in Function .* it cuts the batch")
    refused(lambda x: x if len(x) == 2 else x + 1, "the net does other work for another batch size")
    refused(
        lambda x: lax.pad(x, np.float32(0), ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))),
        "'pad' in Function has no counterpart in ONNX here: it pads between elements",
    )
    refused(
        lambda x: lax.conv_transpose(x, np.ones((2, 2, 3, 3), "f"), (2, 2), "SAME"),
        "'conv_general_dilated' in Function .* it is a transposed convolution",
    )
    refused(
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME"),
        r"it isn't a pool over the pixels",
    )


def test_a_refused_net_leaves_the_old_file(tmp_path, monkeypatch):
    path = onnx_export.save_onnx(tmp_path / "net", NET, TICKET, SHAPE)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="unknown layout 'CHWN': one of NHWC, NCHW"):
        onnx_export.save_onnx(path, NET, TICKET, SHAPE, "CHWN")
    with pytest.raises(ValueError, match="sort"):
        onnx_export.save_onnx(path, Function(jnp.sort), Ticket({}, {}, {}, 0), (4,))
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"LeNet5 has [0-9]+ bytes: an ONNX file holds 2 GiB"):
        onnx_export.save_onnx(path, NET, TICKET, SHAPE)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    for call in (
        lambda: onnx_export.to_onnx(NET, TICKET, SHAPE),
        lambda: onnx_export.load_onnx("net.onnx"),
    ):
        with pytest.raises(UserError, match=r"pip install 'jaxtickets\[export\]'\Z"):
            call()


def test_no_damaged_file_is_loaded_as_another_ticket(tmp_path):
    path = onnx_export.save_onnx(tmp_path / "net", NET, TICKET, SHAPE, provenance={"seed": 1})
    content = path.read_bytes()
    expected, _ = onnx_export.load_onnx(path)
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            found, _ = onnx_export.load_onnx(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    path.write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"is no ONNX file|is damaged|no checksum"):
        onnx_export.load_onnx(path)


def test_a_foreign_or_missing_file_says_so(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        onnx_export.load_onnx(tmp_path / "net")
    for content in (b"", b"no graph", nets_elsewhere()):
        (tmp_path / "net").write_bytes(content)
        with pytest.raises(UserError, match=r"is no ONNX file|has no checksum") as error:
            onnx_export.load_onnx(tmp_path / "net")
        assert "\n" not in str(error.value)


def nets_elsewhere():
    """The file of a graph that another program wrote."""
    helper = onnx.helper
    one = helper.make_tensor_value_info("x", 1, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [one], [helper.make_tensor_value_info("y", 1, [1])])
    return helper.make_model(graph).SerializeToString()


class Turned(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.ones, (2, 3)).T


def test_a_leaf_that_the_graph_only_has_in_another_form_is_named(tmp_path):
    ticket = random_ticket(Turned(), (3,))
    path = onnx_export.save_onnx(tmp_path / "net", Turned(), ticket, (3,))
    x = examples((3,), 2)
    close(run(path.read_bytes(), {"images": x})[0], logits(Turned(), ticket, x))
    with pytest.raises(UserError, match="has kernel only in another form"):
        onnx_export.load_onnx(path)


def test_the_net_stands_in_the_file(tmp_path):
    about = {"net": nets.to_json(NET), "loss": float("inf")}
    path = onnx_export.save_onnx(tmp_path / "net", NET, TICKET, SHAPE, provenance=about)
    _, provenance = onnx_export.load_onnx(path)
    assert nets.from_json(provenance["net"]) == NET and provenance["loss"] == float("inf")
