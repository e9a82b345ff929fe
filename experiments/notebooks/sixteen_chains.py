# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sixteen chains: annealing from its parts
#
# A search over masks is made of parts, each a pure function: a *space* of bits, *moves* between
# its points, an *energy* to lower, a *rule* that accepts moves at a temperature, and *plans* that
# say how hot each step is. Written for one chain, it runs for sixteen by `vmap`.

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
from jaxtickets.search import annealing, energies, space, swaps
from jaxtickets.types import Split

# %% [markdown]
# ## The space and its moves
#
# scikit-learn's digits have 8x8 pixels, and the net 16 hidden units. A point of the space has one
# bit for each of its weights, a fifth of which are on. A move switches some bits off and as many
# others on, so that the count never changes.

# %%
digits = data.load("digits")
prepare = partial(augment.normalise, mean=digits.mean, std=digits.std)
train, validation = jax.tree.map(jnp.asarray, (digits.train, digits.validation))
model = nets.functional(MLP(widths=(16,)), (8, 8, 1))
params, stats = model.init(jax.random.key(0))
prunable = masks.prunable(params)
keep = round(0.2 * masks.size(params, prunable))
bits = space.weights(params, prunable)
moves = swaps.moves(bits, most=20)
print(f"{bits.size} bits, {keep} of them on: {dict(zip(bits.names, bits.sizes, strict=True))}")

# %% [markdown]
# ## Energies
#
# An energy maps a mask to a number, and lower is better. Four of them value the same 64 random
# masks. Each is then compared with what one wants to know but can't afford at each step: the loss
# on validation images after a training of 100 steps. Among random masks, each says only a little.

# %%
IMAGES, BATCH, STEPS = 200, 50, 100
images, labels = prepare(train.images[:IMAGES]), train.labels[:IMAGES]
loss = losses.classification(model, prepare)
sgd = optimizers.optimizer("momentum", 0.05)
order = batches.stream(jax.random.key(1), 0, STEPS, len(train.labels), BATCH)
trained_on = Split(train.images[order], train.labels[order])
dense = Evidence(params, params, stats, masks.ones(params), trained_on, loss)
snip = CRITERIA["snip"].score(jax.random.key(2), dense)

few = jax.tree.map(lambda a: a[:5], trained_on)
candidates = {
    "cross-entropy": energies.fixed(model, params, stats, images, labels, losses.cross_entropy),
    "error rate": energies.fixed(model, params, stats, images, labels, losses.error_rate),
    "SNIP's loss": energies.saliency(snip, prunable),
    "after 5 steps": energies.trainability(
        model=model,
        loss=loss,
        optimizer=sgd,
        params=params,
        stats=stats,
        batches=few,
        images=images,
        labels=labels,
        measure=losses.cross_entropy,
        noise_key=jax.random.key(3),
    ),
}


def after_training(mask):
    """The validation loss after `STEPS` masked training steps, in nats, and the accuracy in %."""
    sparse = static.masked(sgd, mask)
    begin = training.init(params, stats, sparse)
    end, _ = training.advance(loss, sparse, jax.random.key(4), begin, trained_on)
    seen = training.evaluate(model, prepare, end.params, end.stats, validation)
    return seen["loss"], 100 * seen["accuracy"]


def draw_mask(key):
    return masks.random(key, params, prunable, keep)


def values(mask):
    return {name: energy.evaluate(jax.random.key(5), mask) for name, energy in candidates.items()}


drawn = jax.vmap(draw_mask)(jax.random.split(jax.random.key(6), 64))
valued = jax.jit(jax.vmap(values))(drawn)
train_all = jax.jit(jax.vmap(after_training))
wanted, _ = train_all(drawn)

fig, axes = plt.subplots(1, 4, figsize=(9.2, 2.6), sharey=True, layout="constrained")
for axis, (name, value) in zip(axes, valued.items(), strict=True):
    axis.plot(value, wanted, "o", markersize=3)
    axis.set_title(f"r = {np.corrcoef(value, wanted)[0, 1]:.2f}", fontsize=10)
    axis.set_xlabel(f"{name} (costs {candidates[name].cost})")
axes[0].set_ylabel("validation loss\nafter training (nats)")
fig.suptitle("64 random masks; r: correlation; costs: forward passes of one image", fontsize=10)
plt.show()

# %% [markdown]
# ## Temperatures
#
# A move that raises the energy by E is accepted with probability exp(-E / T). Three plans for the
# temperature T, each for sixteen chains: cold throughout, which is hill climbing; hot throughout;
# and cooling. The chains differ in their keys alone, and all 48 are one program.

# %%
MOVES, CHAINS = 640, 16
COLD, HOT = 1e-6, 1e-2
size = schedules.geometric(20, MOVES, 1)
temperatures = {
    "cold": schedules.constant(COLD, MOVES),
    "cooling": schedules.geometric(HOT, MOVES, 1e-5),
    "hot": schedules.constant(HOT, MOVES),
}
plans = [annealing.step_plans(MOVES, each, size) for each in temperatures.values()]
plans = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plans)
kernel = annealing.build(moves, bits.mask, candidates["cross-entropy"], annealing.Rules())


def chain(plan, key):
    draw_key, init_key, walk_key = jax.random.split(key, 3)
    begin = kernel.init(init_key, bits.bits(draw_mask(draw_key)))
    return annealing.run(kernel, walk_key, begin, plan)


keys = jax.random.split(jax.random.key(7), CHAINS)
over_keys = jax.vmap(chain, (None, 0))
states, trace = jax.jit(jax.vmap(over_keys, (0, None)))(plans, keys)

fig, axes = plt.subplots(3, 3, figsize=(8.4, 5.6), sharex=True, sharey="row", layout="constrained")
for column, (name, each) in enumerate(temperatures.items()):
    temperature, energy, accepted = axes[:, column]
    temperature.set_title(name, fontsize=10)
    temperature.semilogy(each(jnp.arange(MOVES)), color="C3")
    energy.plot(trace.energy[column].T, color="C0", linewidth=0.5, alpha=0.6)
    energy.plot(trace.energy[column].mean(0), color="black")
    rate = trace.accepted[column].mean(0).reshape(-1, 20).mean(1)
    accepted.plot(np.arange(10, MOVES, 20), 100 * rate, color="C2")
    accepted.set_ylim(0, 100)
    accepted.set_xlim(0, MOVES)
    accepted.set_xlabel("step")
axes[0, 0].set_ylabel("temperature (nats)")
axes[1, 0].set_ylabel("energy (nats):\n16 chains, mean")
axes[2, 0].set_ylabel("moves accepted (%)")
plt.show()
for name, lowest in zip(temperatures, states.best_energy, strict=True):
    print(f"{name:8} lowest energy {lowest.mean():.3f} ± {lowest.std(ddof=1):.3f}, n = {CHAINS}")

# %% [markdown]
# ## Do the chains find the same mask?
#
# Two random masks of density d have an expected cosine of d. Sixteen chains that cooled lower the
# loss about equally well, at masks that share little more than chance. The right picture, the mean
# over the chains, is much flatter than a single one: there are many good masks, not one.

# %%
best = jax.vmap(bits.mask)(states.best[1])
distance = masks.distances(masks.pack(states.best[1]))
cosine = 1 - distance / (2 * keep)  # all masks keep equally many
others = cosine[~np.eye(CHAINS, dtype=bool)]
read = np.asarray(best["fc1"]["kernel"]).sum(2).reshape(CHAINS, 8, 8)
winner = int(states.best_energy[1].argmin())

fig, axes = plt.subplots(1, 3, figsize=(8.8, 2.7), layout="constrained")
picture = axes[0].imshow(cosine, vmin=0, vmax=1, cmap="magma")
axes[0].set_xlabel("chain")
axes[0].set_ylabel("chain")
axes[0].set_xticks([0, 5, 10, 15])
axes[0].set_yticks([0, 5, 10, 15])
axes[0].set_title(f"cosine of masks: {others.mean():.2f}, chance 0.20", fontsize=10)
fig.colorbar(picture, ax=axes[0])
for axis, counts, name in zip(
    axes[1:], (read[winner], read.mean(0)), ("best chain", "mean of 16 chains"), strict=True
):
    picture = axis.imshow(counts, vmin=0, vmax=8, cmap="viridis")
    axis.set_title(name, fontsize=10)
    axis.set_xticks([0, 7])
    axis.set_yticks([0, 7])
fig.colorbar(picture, ax=axes[1:], label="kept weights at a pixel, of 16")
plt.show()

# %% [markdown]
# ## Are they tickets?
#
# The masks of the three plans, and random ones, train from the first weights for 100 steps. Masks
# that lower the untrained loss also train better, in so short a training. Here the cold chains do
# as well as those that cool: heat is worth its steps only where hill climbing gets stuck.

# %%
starts = jax.vmap(draw_mask)(jax.random.split(jax.random.key(8), CHAINS))
rows = {"random": starts} | {
    name: jax.vmap(bits.mask)(state) for name, state in zip(temperatures, states.best, strict=True)
}
everything = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows.values())
_, accuracy = train_all(everything)
accuracy = np.reshape(accuracy, (len(rows), CHAINS))

fig, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
for row, each in enumerate(accuracy):
    axis.plot(each, np.full(CHAINS, row), "o", color=f"C{row}", alpha=0.4, markersize=4)
    axis.plot(each.mean(), row, "|", color=f"C{row}", markersize=24)
axis.set_yticks(range(len(rows)), list(rows))
axis.invert_yaxis()
axis.set_xlabel("validation accuracy after training (%); the bar is the mean of 16")
axis.grid(axis="x", alpha=0.3)
plt.show()
for name, each in zip(rows, accuracy, strict=True):
    print(f"{name:8} {each.mean():.1f} ± {each.std(ddof=1):.1f} %, n = {CHAINS}")

# %% [markdown]
# Chains can also work together (`search.interacting_chains`), propose moves by gradients
# (`search.informed`), or train the weights while they walk (`recipes.annealed_training`).
# [energy_study](../energy_study/README.md) and [sa_search](../sa_search/README.md) measure these.
