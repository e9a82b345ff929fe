# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour: one net, its masks, and its tickets
#
# A *mask* is a tree of booleans in the shape of a net's parameters; what is False is held at
# zero. A *ticket* is the parameters and a mask over them. Here a small net reads handwritten
# digits. Two searches choose a twentieth of its weights, and what they chose is drawn, trained,
# and compared with a random choice and with all weights.

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
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxtickets import data, losses, masks, nets, optimizers, schedules, training
from jaxtickets.criteria import CRITERIA, Evidence
from jaxtickets.data import augment, batches
from jaxtickets.dynamic import static
from jaxtickets.nets.mlp import MLP
from jaxtickets.recipes import imp
from jaxtickets.search import annealing, energies, space, swaps
from jaxtickets.types import Split

if importlib.util.find_spec("treescope"):
    import treescope

    show = treescope.show
else:
    show = print

# %% [markdown]
# ## A net as two pure functions
#
# `mnist5k` is 5,000 real MNIST images that come in a package. `nets.functional` makes `init` and
# `apply` of any Flax module, so that all that follows is functions of arrays.

# %%
digits = data.load("mnist5k")
prepare = partial(augment.normalise, mean=digits.mean, std=digits.std)
model = nets.functional(MLP(widths=(32,)), (28, 28, 1))
params, stats = model.init(jax.random.key(0))
show(jax.tree.map(jnp.shape, params))

# %% [markdown]
# ## Masks
#
# `prunable` names the leaves that are pruned: kernels, but not biases. Every mask here keeps 5 %
# of their weights, counted exactly.

# %%
prunable = masks.prunable(params)
size = masks.size(params, prunable)
keep = round(0.05 * size)
random_mask = masks.random(jax.random.key(1), params, prunable, keep)
print(f"{prunable}: {size} weights, of which the mask keeps {keep}")
print({path: int(count) for path, count in masks.counts(random_mask, prunable).items()})
show(masks.apply(random_mask, params)["out"]["bias"])

# %% [markdown]
# ## Training is a function too
#
# `one_training` maps a mask and a key to trained weights. The optimiser holds the mask: after each
# step the weights outside of it are zero, bit for bit.

# %%
STEPS, BATCH = 240, 100
train = jax.tree.map(jnp.asarray, digits.train)
loss = losses.classification(model, prepare)


def one_training(mask, key):
    """The trained weights, the loss of each step, and the accuracy on the test images in %."""
    order_key, step_key = jax.random.split(key)
    order = batches.stream(order_key, 0, STEPS, len(train.labels), BATCH)
    sparse = static.masked(optimizers.optimizer("momentum", 0.03), mask)
    end, metrics = training.advance(
        loss,
        sparse,
        step_key,
        training.init(params, stats, sparse),
        order,
        fetch=lambda _, index: Split(train.images[index], train.labels[index]),
    )
    tested = training.evaluate(model, prepare, end.params, end.stats, digits.test)
    return end, metrics["loss"], 100 * tested["accuracy"]


train_once = jax.jit(one_training)
dense, _, accuracy = train_once(masks.ones(params), jax.random.key(2))
print(f"all weights: {accuracy:.1f} % of the test images")

# %% [markdown]
# ## A ticket by iterative magnitude pruning
#
# Train, keep the largest of the weights that are left, go back to the first weights, repeat
# (Frankle and Carbin, 2019). Five levels lead to 5 %.

# %%
LEVELS = 5
first_batches = Split(train.images[None, :BATCH], train.labels[None, :BATCH])
imp_mask, end = masks.ones(params), dense
for level in range(1, LEVELS + 1):
    evidence = Evidence(params, end.params, end.stats, imp_mask, first_batches, loss)
    level_keep = round(size * 0.05 ** (level / LEVELS))
    imp_mask = imp.prune(jax.random.key(3), CRITERIA["magnitude"], evidence, prunable, level_keep)
    end, _, accuracy = train_once(imp_mask, jax.random.key(2))
    print(f"{float(masks.density(imp_mask, prunable)):6.1%} of the weights: {accuracy:.1f} %")

# %% [markdown]
# ## A ticket by annealing
#
# Nothing is trained here. A walk over masks swaps some kept weights for others, and lowers the
# loss of the *untrained* net on 250 training images. While it is hot it also accepts swaps that
# raise the loss. [sixteen_chains](sixteen_chains.ipynb) takes this search apart.

# %%
MOVES, IMAGES = 2400, 250
bits = space.weights(params, prunable)
energy = energies.fixed(
    model,
    params,
    stats,
    prepare(train.images[:IMAGES]),
    train.labels[:IMAGES],
    losses.cross_entropy,
)
kernel = annealing.build(swaps.moves(bits, most=100), bits.mask, energy, annealing.Rules())
plans = annealing.step_plans(
    MOVES, schedules.geometric(4e-3, MOVES, 1e-5), schedules.geometric(100, MOVES, 2)
)


@jax.jit
def search(key, first):
    init_key, walk_key = jax.random.split(key)
    return annealing.run(kernel, walk_key, kernel.init(init_key, bits.bits(first)), plans)


found, trace = search(jax.random.key(4), random_mask)
annealed_mask = bits.mask(found.best)
tested = training.evaluate(model, prepare, masks.apply(annealed_mask, params), stats, digits.test)
print(f"untrained, the annealed mask alone: {100 * tested['accuracy']:.1f} % of the test images")

fig, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
axis.plot(trace.energy, color="0.7", label="of the walk")
axis.plot(trace.best_energy, color="C0", label="lowest so far")
axis.set_xlabel("step")
axis.set_ylabel("cross-entropy (nats)")
axis.set_title("Loss of the untrained net on 250 training images")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What they keep
#
# Each input weight belongs to a pixel. The pictures count, at each pixel, how many of its 32
# weights a mask keeps. IMP drops the border, where every image is black, and crowds where strokes
# are.

# %%
chosen = {"random": random_mask, "annealing": annealed_mask, "IMP": imp_mask}
kept_at = {
    name: np.asarray(mask["fc1"]["kernel"]).sum(1).reshape(28, 28) for name, mask in chosen.items()
}
fig, axes = plt.subplots(1, 4, figsize=(8.4, 2.3), layout="constrained")
axes[0].imshow(digits.train.images.mean(0)[..., 0], cmap="gray_r")
axes[0].set_title("mean training image", fontsize=10)
most = max(int(counts.max()) for counts in kept_at.values())
for axis, (name, counts) in zip(axes[1:], kept_at.items(), strict=True):
    picture = axis.imshow(counts, vmin=0, vmax=most, cmap="viridis")
    axis.set_title(f"{name}: {counts.sum()} weights", fontsize=10)
for axis in axes:
    axis.set_xticks([0, 14, 27])
    axis.set_yticks([0, 14, 27])
fig.colorbar(picture, ax=axes[1:], label="kept weights at a pixel")
plt.show()

# %% [markdown]
# Neuron by neuron: the trained weights that IMP leaves to the eight neurons with the most of them.

# %%
kernel_of_imp = np.asarray(end.params["fc1"]["kernel"])
busiest = np.argsort(-np.asarray(imp_mask["fc1"]["kernel"]).sum(0))[:8]
limit = np.abs(kernel_of_imp).max()
fig, axes = plt.subplots(1, 8, figsize=(8.4, 1.6), layout="constrained")
for axis, unit in zip(axes, busiest, strict=True):
    image = kernel_of_imp[:, unit].reshape(28, 28)
    picture = axis.imshow(image, vmin=-limit, vmax=limit, cmap="RdBu_r")
    axis.set_title(f"{np.count_nonzero(image)} kept", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
fig.colorbar(picture, ax=axes, label="weight", shrink=0.9)
plt.show()

# %% [markdown]
# ## The comparison
#
# All masks train from the same first weights, three times each with other orders of the data. One
# `vmap` over masks and one over keys make a single batch of it. *IMP shuffled* keeps as many
# weights of each layer as IMP does, at random places: what it lacks is the places alone.

# %%
chosen = {
    "all weights": masks.ones(params),
    **chosen,
    "IMP shuffled": masks.shuffle(jax.random.key(6), imp_mask, prunable),
}
stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen.values())
keys = jax.random.split(jax.random.key(5), 3)
over_keys = jax.vmap(one_training, (None, 0))
_, curves, accuracies = jax.jit(jax.vmap(over_keys, (0, None)))(stacked, keys)
mean, deviation = accuracies.mean(1), accuracies.std(1, ddof=1)

fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3), layout="constrained")
for name, curve in zip(chosen, curves.mean(1), strict=True):
    left.plot(np.arange(10, STEPS + 1, 10), curve.reshape(-1, 10).mean(1), label=name)
left.set_xlabel("training step")
left.set_ylabel("training loss (nats)")
left.set_xlim(0, STEPS)
left.legend(frameon=False)
for row, (centre, spread) in enumerate(zip(mean, deviation, strict=True)):
    right.errorbar(centre, row, xerr=spread, fmt="o", capsize=4)
right.set_yticks(range(len(chosen)), list(chosen))
right.invert_yaxis()
right.set_xlabel("test accuracy (%)")
right.set_title("mean ± standard deviation, n = 3 orders", fontsize=10)
right.grid(axis="x", alpha=0.3)
plt.show()
for name, centre, spread in zip(chosen, mean, deviation, strict=True):
    print(f"{name:12} {centre:.1f} ± {spread:.1f} %")

# %% [markdown]
# One net and one mask of each kind show how it is done, not what holds in general. For that, the
# experiments repeat it over seeds: [imp_rewind](../imp_rewind/README.md) and
# [sa_search](../sa_search/README.md).
