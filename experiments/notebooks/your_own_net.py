# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own net, your own data, your own loss
#
# Nothing is registered and nothing is subclassed: masks, criteria, and methods whose masks move
# take any tree of arrays. Here two nets learn a function of the plane, one in Flax NNX and one in
# Flax Linen, both in a loop of plain optax.

# %%
# Colab lacks jaxtickets: this installs it there, and does nothing where it can be imported
import importlib.util
import subprocess
import sys

ADDRESS = "git+https://github.com/OUR_ACCOUNT/jaxtickets"  # see README.md in this folder


class NotInstalledError(ImportError):
    """IPython shows its message alone, in one line."""

    def _render_traceback_(self):
        return [str(self)]


if importlib.util.find_spec("jaxtickets") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", ADDRESS]
    if subprocess.run(pip, capture_output=True).returncode:
        raise NotInstalledError(
            f"jaxtickets can't be installed from {ADDRESS}: "
            "write its address there, or run `pip install -e .` in a checkout"
        )

# %%
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from jaxtickets import gates, losses, masks, nets, training
from jaxtickets.compress import graph, report, shrink, used_units
from jaxtickets.criteria import CRITERIA, Evidence
from jaxtickets.dynamic import granet, static
from jaxtickets.io import portable, stablehlo
from jaxtickets.types import Split, Ticket

if importlib.util.find_spec("treescope"):
    import treescope

    show = treescope.show
else:
    show = print

# %% [markdown]
# ## The data and the loss
#
# Points of the plane, and a height above each. The loss is the mean squared error, so that nothing
# here is a classification.

# %%
BATCH, STEPS = 128, 1200
lines = jnp.linspace(-2, 2, 60)
grid = jnp.stack(jnp.meshgrid(lines, lines), -1).reshape(-1, 2)


def height(points):
    """Hills and valleys: `[n, 2]` -> `[n, 1]`."""
    return jnp.sin(2 * points[:, :1]) * jnp.cos(points[:, 1:] * points[:, :1])


points = jax.random.uniform(jax.random.key(0), (STEPS, BATCH, 2), minval=-2, maxval=2)
batches = Split(points, jax.vmap(height)(points))


def squared_error(predicted, heights):
    return jnp.mean((predicted - heights) ** 2)


def draw(surfaces):
    """Pictures of functions of the plane, name -> heights on the grid, in one scale."""
    size = (2.3 * len(surfaces) + 0.6, 2.4)
    fig, axes = plt.subplots(1, len(surfaces), figsize=size, layout="constrained")
    for axis, (name, heights) in zip(axes, surfaces.items(), strict=True):
        picture = axis.imshow(
            np.reshape(heights, (60, 60)), extent=(-2, 2, -2, 2), vmin=-1, vmax=1, origin="lower"
        )
        axis.set_title(name, fontsize=10)
        axis.set_xticks([-2, 0, 2])
        axis.set_yticks([-2, 0, 2])
    fig.colorbar(picture, ax=axes, label="height")
    plt.show()


# %% [markdown]
# ## A Flax NNX net and its masks
#
# `nets.functional_nnx` makes `init` and `apply` of an NNX module, `nets.functional` of a Linen one.
# The parameters are a tree of arrays. The leaves' names tell which of them are kernels, and these
# are pruned.


# %%
class Surface(nnx.Module):
    """Two hidden layers, from points of the plane to heights."""

    def __init__(self, rngs):
        self.first = nnx.Linear(2, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.last = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.second(nnx.tanh(self.first(x)))))


nnx_model = nets.functional_nnx(Surface)
params, _ = nnx_model.init(jax.random.key(2))


def predict(weights, x):
    return nnx_model.apply(weights, {}, x)[0]


prunable = masks.prunable(params)
size = masks.size(params, prunable)
keep = round(0.08 * size)
print(f"{size} weights in {', '.join(prunable)}; {keep} are kept")
random_mask = masks.random(jax.random.key(1), params, prunable, keep)
show(masks.densities(random_mask, prunable))

# %% [markdown]
# ## A criterion with a loss of one's own
#
# A criterion scores every weight from an `Evidence`. SNIP asks which weights the loss depends on
# most, before any training. The loss has the signature of all losses here: `(params, stats, batch,
# key) -> (scalar, (stats, metrics))`.


# %%
def loss(weights, stats, batch, key):
    error = squared_error(predict(weights, batch.images), batch.labels)
    return error, (stats, {"loss": error})


first = Split(*jax.tree.map(lambda a: a[:4], batches))
evidence = Evidence(params, params, {}, masks.ones(params), first, loss)
scores = CRITERIA["snip"].score(jax.random.key(3), evidence)
snip_mask = masks.select(scores, prunable, keep)
show(masks.counts(snip_mask, prunable))

# %% [markdown]
# ## A mask that moves, in a plain optax loop
#
# A method is an optax transformation around an optax optimiser. It takes the dense gradient, and
# after `optax.apply_updates` the weights obey its mask exactly. GraNet begins with half of the
# weights; every 50 steps it drops the smallest, and grows others of large gradient.


# %%
def fit(predict, weights, optimizer):
    """Plain optax: the trained weights, the optimiser's state, and the loss of each step."""

    def step(carry, batch):
        weights, state = carry
        points, heights = batch

        def error(weights):
            return squared_error(predict(weights, points), heights)

        value, gradient = jax.value_and_grad(error)(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), value

    begin = weights, optimizer.init(weights)
    (weights, state), curve = jax.lax.scan(step, begin, tuple(batches))
    return weights, state, curve


adam = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))
half = masks.random(jax.random.key(4), params, prunable, round(0.5 * size))
moves = granet.plan(moves=20, begin=round(0.5 * size), end=keep)
optimizers = {
    "all weights": (static.masked(adam, masks.ones(params)), masks.ones(params)),
    "random": (static.masked(adam, random_mask), random_mask),
    "SNIP": (static.masked(adam, snip_mask), snip_mask),
    "GraNet": (granet.granet(adam, half, prunable, moves, every=50), half),
}
fits = {
    name: jax.jit(lambda weights, optimizer=optimizer: fit(predict, weights, optimizer))(
        masks.apply(mask, params)
    )
    for name, (optimizer, mask) in optimizers.items()
}
for name, (weights, state, _) in fits.items():
    error = squared_error(predict(weights, grid), height(grid))
    print(f"{name:11} {int(masks.count(state.mask, prunable)):5} weights, error {error:.4f}")

# %%
fig, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
for name, (_, _, curve) in fits.items():
    axis.semilogy(np.arange(25, STEPS + 1, 25), curve.reshape(-1, 25).mean(1), label=name)
axis.set_xlim(0, STEPS)
axis.set_xlabel("training step")
axis.set_ylabel("mean squared error")
axis.set_title(f"Trainings of the NNX net, the last three to {keep} of {size} weights")
axis.legend(frameon=False)
plt.show()
draw({"truth": height(grid)} | {name: predict(end, grid) for name, (end, _, _) in fits.items()})

# %% [markdown]
# ## A Flax Linen net, made smaller for real
#
# Masks alone save nothing. A Linen module that takes its layers' sizes as `widths` can shrink:
# `graph.trace` reads from its jaxpr how units hang together, `used_units` finds those that a mask
# leaves without a use, and `shrink` makes the small net and tries on random inputs whether it
# computes the same.


# %%
class LinenSurface(nn.Module):
    """The same net in Linen; `widths` are the units of its hidden layers."""

    widths: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, x):
        for i, units in enumerate(self.widths):
            x = nn.tanh(nn.Dense(units, name=f"hidden{i}")(x))
        return nn.Dense(1, name="last")(x)


net = LinenSurface()
model = nets.functional(net, (2,))
first_weights, stats = model.init(jax.random.key(5))
kernels = masks.prunable(first_weights)
half = masks.random(jax.random.key(6), first_weights, kernels, round(0.5 * size))
sparse = granet.granet(adam, half, kernels, moves, every=50)


@jax.jit
def fit_linen(weights):
    return fit(lambda weights, x: model.apply(weights, stats, x)[0], weights, sparse)


weights, state, _ = fit_linen(masks.apply(half, first_weights))
ticket = Ticket(weights, stats, state.mask, jnp.int32(STEPS))
traced = graph.trace(net, (2,))
units = used_units.used_units(ticket.mask, traced)
small_net, small_ticket, found = shrink.shrink(net, ticket, units, traced)
print(f"{net.widths} units become {small_net.widths}")
for row in report.rows(found):
    print(row)

# %%
small = nets.functional(small_net, (2,))
large_surface, _ = model.apply(weights, stats, grid)
small_surface, _ = small.apply(small_ticket.params, small_ticket.stats, grid)
print(f"largest difference: {float(jnp.abs(large_surface - small_surface).max()):.1e}")
draw({"truth": height(grid), "large, masked": large_surface, "small": small_surface})

# %% [markdown]
# ## Gates that train with the weights
#
# With L0 gates, the training decides how many weights stay. `gates.start`, `gates.loss` and
# `gates.optimizer` turn the weights, the loss and the optimiser of a loop into those of weights and
# gates together; afterwards, `gates.ticket` has the mask. Gates with random weights work in the
# same way: see `help(jaxtickets.recipes.bayesian)` for a Bayesian net.


# %%
def linen_loss(weights, stats, batch, key):
    predicted, stats = model.apply(weights, stats, batch.images, key, True)
    return squared_error(predicted, batch.labels), (stats, {})


setting = gates.Setting(STEPS, examples=STEPS * BATCH)
gate = gates.l0.gate(kernels, keep=None, floor=0, setting=setting)
gate_loss = jax.value_and_grad(gates.loss(gate, linen_loss), has_aux=True)
both = gates.optimizer(gate, adam, optax.adam(0.1))


@jax.jit
def fit_gates(weights):
    """Plain optax once more: the mask, the weights that it selects from, and the error."""

    def step(carry, batch):
        trained, gate_stats, state = carry
        key = jax.random.fold_in(jax.random.key(11), gate_stats.step)
        (_, (gate_stats, _)), gradient = gate_loss(trained, gate_stats, batch, key)
        updates, state = both.update(gradient, state, trained)
        return (optax.apply_updates(trained, updates), gate_stats, state), None

    trained, gate_stats = gates.start(gate, jax.random.key(10), weights, stats, strength=5.0)
    begin = trained, gate_stats, both.init(trained)
    (trained, gate_stats, _), _ = jax.lax.scan(step, begin, batches)
    mask, left = gates.ticket(gate, trained, gate_stats)
    surface, _ = model.apply(masks.apply(mask, left), stats, grid)
    return mask, left, squared_error(surface, height(grid))


mask, left, error = fit_gates(first_weights)
print(f"L0 gates: {int(masks.count(mask, kernels))} of {size} weights, error {error:.4f}")

# %% [markdown]
# ## Another question: the next character
#
# A `losses.Task` says what a net is asked: classes, numbers, or the next token. Trainings,
# evaluations and criteria take it. Here a small causal net reads Python's manual, which comes with
# Python, and foretells each next character. A tenth of its weights is kept, by Fisher pruning, by
# magnitude or at random, and trained on.

# %%
text = "".join(topics.values())[:200_000]
letters = sorted(set(text))
codes = np.searchsorted(letters, list(text)).astype(np.int32)
excerpts = codes[: len(codes) // 65 * 65].reshape(-1, 65)
pages = Split(excerpts, np.zeros(len(excerpts), np.int32))  # they are their own labels
held_out, read = (
    jax.tree.map(lambda a, at=at: a[at], pages) for at in np.split(np.r_[: len(excerpts)], [400])
)


class Reader(nn.Module):
    """Characters `[n, t]` -> logits of the next ones; each reads the last eight."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(len(letters), 32, name="embed")(tokens)
        before = jnp.pad(x, ((0, 0), (7, 0), (0, 0)))
        eight = [before[:, i : i + tokens.shape[1]] for i in range(8)]
        x = nn.gelu(nn.Dense(128, name="context")(jnp.concatenate(eight, -1)))
        return nn.Dense(len(letters), name="next")(x)


task = losses.NEXT_TOKEN
reader = nets.functional(Reader(), jax.ShapeDtypeStruct((64,), jnp.int32))
recipe = training.Recipe(
    reader,
    losses.of_task(task, reader, jnp.asarray),
    optax.adam,
    jnp.asarray,
    None,
    32,
    200,
    task=task,
)
begun, none = reader.init(jax.random.key(7))
layers = masks.prunable(begun)


@jax.jit
def learn(mask, weights):
    """The weights after 200 steps, and the loss on excerpts that were not read."""
    data = training.Splits(read, held_out, None)
    watched, seen = training.train(
        recipe, jax.random.key(8), jnp.float32(3e-3), weights, none, mask, data, steps=200
    )
    return watched.state.params, seen["loss"][-1]


dense, loss_of_dense = learn(masks.ones(begun), begun)
seen = jax.tree.map(lambda a: a[:64].reshape(8, 8, *a.shape[1:]), read)
evidence = Evidence(
    begun, dense, none, masks.ones(begun), seen, recipe.loss, reader, jnp.asarray, layers, task
)
tenth = masks.size(begun, layers) // 10
print(f"dense: {loss_of_dense / np.log(2):.2f} bits a character")
for name in ("fisher", "magnitude", "random"):
    scores = jax.jit(lambda key, of=CRITERIA[name].score: of(key, evidence))(jax.random.key(9))
    _, loss = learn(masks.select(scores, layers, tenth, floor=1), dense)
    print(f"a tenth, by {name}: {loss / np.log(2):.2f}")

# %% [markdown]
# ## Out of the notebook
#
# A ticket becomes one safetensors file, which any language reads; a program of `jax.export` runs
# without the net's code. `io.onnx_export` and `io.pytorch` write nets for onnxruntime and PyTorch.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = portable.save_portable(Path(folder) / "ticket.safetensors", small_ticket, {"by": "me"})
    again, provenance = portable.load_portable(file)
    print(f"{file.name}: {file.stat().st_size} bytes, {provenance}")
    same = jax.tree.map(lambda a, b: bool((a == b).all()), again.params, small_ticket.params)
    print(f"the same numbers: {all(jax.tree.leaves(same))}")
    file = stablehlo.save_program(Path(folder) / "net.program", small_net, small_ticket, (2,))
    program = stablehlo.load_program(file)
    heights = program.apply(program.params, program.stats, grid)
    print(f"{file.name}: off by {float(jnp.abs(heights - small_surface).max()):.1e} at most")
