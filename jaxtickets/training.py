"""Masked training: one primitive that advances a state over batches, and a loop over it.

After every step `params == where(mask, params, fill)`, bit for bit: the loss is differentiated at
the masked weights, the optimiser sees the survivors' gradients only, and the new parameters are
masked again. Keys are folded from the step, so that a training cut into pieces anywhere gives the
same numbers, and resuming needs the state alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import losses, masks
from jaxtickets.data import batches as data_batches
from jaxtickets.types import Array, Key, Loss, Mask, Model, Params, PyTree, Split, Stats, TrainState

Fetch = Callable[[Key, PyTree], Split]
"""`fetch(key, element) -> Split`: a batch from what the scan is given, such as indices."""

Metrics = dict[str, Any]


def init(
    params: Params,
    stats: Stats,
    mask: Mask,
    optimizer: optax.GradientTransformation,
    fill: Params | None = None,
    method_state: PyTree = (),
) -> TrainState:
    """The state before the first step; `params` are masked here."""
    params = masks.apply(mask, params, fill)
    step = jnp.zeros((), jnp.int32)
    return TrainState(params, stats, optimizer.init(params), mask, method_state, step)


def step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    key: Key,
    state: TrainState,
    batch: Split,
    fill: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """One masked step; the key is consumed."""
    differentiate = jax.value_and_grad(loss, has_aux=True)
    (_, (stats, metrics)), gradient = differentiate(state.params, state.stats, batch, key)
    gradient = masks.apply(state.mask, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = masks.apply(state.mask, optax.apply_updates(state.params, updates), fill)
    new = state._replace(params=params, stats=stats, opt_state=opt_state, step=state.step + 1)
    return new, metrics


def advance(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: Fetch | None = None,
    fill: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """One step for each element of `batches`, scanned.

    Args:
      loss: the training loss.
      optimizer: the optax optimiser that made the state.
      key: the run's key, the same for all pieces of a run; step t uses `fold_in(key, t)`.
      state: where to begin.
      batches: PyTree with a leading axis of steps: a stacked `Split`, or what `fetch` understands.
      fetch: `(key, element) -> Split`; the identity by default.
      fill: what stands where the mask is False; zero by default.

    Returns:
      The state after the last batch, and the loss' metrics, `[steps]` each.
    """

    def body(state: TrainState, element: PyTree) -> tuple[TrainState, Metrics]:
        fetch_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = fetch(fetch_key, element) if fetch else element
        return step(loss, optimizer, loss_key, state, batch, fill)

    return lax.scan(body, state, batches)


def evaluate(
    model: Model,
    prepare: Callable[[Array], Array],
    params: Params,
    stats: Stats,
    split: Split,
    batch_size: int = 1000,
) -> Metrics:
    """Mean loss and accuracy over all of `split` in evaluation mode, a batch at a time.

    Returns:
      `{"loss", "accuracy"}`: nats, and a fraction.
    """
    n = split.labels.shape[0]
    batch_size = min(batch_size, n)
    whole = n // batch_size

    def totals(part: Split) -> tuple[Array, Array]:
        logits, _ = model.apply(params, stats, prepare(part.images))
        size = part.labels.shape[0]
        loss = losses.cross_entropy(logits, part.labels) * size
        hits = jnp.sum(jnp.argmax(logits, -1) == part.labels, dtype=jnp.int32)
        return loss, hits

    def body(total: tuple[Array, Array], part: Split) -> tuple[tuple[Array, Array], None]:
        return jax.tree.map(jnp.add, total, totals(part)), None

    head = jax.tree.map(lambda a: a[: whole * batch_size], split)
    parts = jax.tree.map(lambda a: a.reshape(whole, batch_size, *a.shape[1:]), head)
    total, _ = lax.scan(body, (jnp.float32(0), jnp.int32(0)), Split(*parts))
    if n % batch_size:
        rest = jax.tree.map(lambda a: a[whole * batch_size :], split)
        total = jax.tree.map(jnp.add, total, totals(Split(*rest)))
    return {"loss": total[0] / n, "accuracy": total[1] / n}


class Recipe(NamedTuple):
    """How a net is trained; static, everything that varies between runs comes as arguments.

    Attributes:
      model: the net as functions.
      loss: the training loss.
      optimizer: `optimizer(hyper) -> optax optimiser`, called inside the traced run.
      prepare: uint8 images -> normalised float images.
      augment: `(key, images) -> images` on uint8 images, or None.
      batch_size: examples a step; an epoch's incomplete last batch is dropped.
      every: steps between two looks at the validation data.
    """

    model: Model
    loss: Loss
    optimizer: Callable[[PyTree], optax.GradientTransformation]
    prepare: Callable[[Array], Array]
    augment: Callable[[Key, Array], Array] | None
    batch_size: int
    every: int


def interval(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    state: TrainState,
    train_split: Split,
    validation: Split,
    steps: int,
    fill: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """`steps` training steps, then a look at the validation data.

    Args:
      recipe: how to train.
      key: the run's key, the same for all pieces of the run.
      hyper: what `recipe.optimizer` is called with, such as a learning rate.
      state: where to begin.
      train_split, validation: data on the device.
      steps: static.
      fill: as in `advance`.

    Returns:
      The state, and `{"step", "train_loss"[steps], "train_accuracy", "loss", "accuracy"}`, the last
      two on the validation data, `step` the number of steps taken by then.
    """
    order_key, step_key = jax.random.split(key)
    n = train_split.labels.shape[0]
    indices = data_batches.stream(order_key, state.step, steps, n, recipe.batch_size)

    def fetch(key: Key, index: Array) -> Split:
        images = train_split.images[index]
        if recipe.augment is not None:
            images = recipe.augment(key, images)
        return Split(images, train_split.labels[index])

    optimizer = recipe.optimizer(hyper)
    state, metrics = advance(recipe.loss, optimizer, step_key, state, indices, fetch, fill)
    seen = evaluate(recipe.model, recipe.prepare, state.params, state.stats, validation)
    return state, {
        "step": state.step,
        "train_loss": metrics["loss"],
        "train_accuracy": jnp.mean(metrics["accuracy"]),
        **seen,
    }


def train(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    params: Params,
    stats: Stats,
    mask: Mask,
    train_split: Split,
    validation: Split,
    steps: int,
    keep_at: tuple[int, ...] = (),
    fill: Params | None = None,
) -> tuple[TrainState, Metrics, Params]:
    """A whole training run: a pure function of its key, parameters, mask and hyperparameters.

    Args:
      recipe, key, hyper, train_split, validation, fill: as in `interval`.
      params, stats, mask: where training begins.
      steps: how many.
      keep_at: steps whose parameters are kept, for rewinding: 0 or multiples of `recipe.every`.

    Returns:
      The last state; the metrics of `interval`, stacked; the parameters (with batch statistics) at
      the steps `keep_at`, stacked in its order, as `(params, stats)`.

    Raises:
      ValueError: `steps` or an entry of `keep_at` isn't a multiple of `recipe.every`, or
        is past the end.
    """
    for asked in (steps, *keep_at):
        if asked % recipe.every or not 0 <= asked <= steps:
            raise ValueError(f"step {asked}: must be a multiple of {recipe.every}, 0 to {steps}")
    state = init(params, stats, mask, recipe.optimizer(hyper), fill)
    wanted = jnp.asarray(keep_at, jnp.int32)

    def store(kept: PyTree, state: TrainState) -> PyTree:
        def one(all_kept: Array, now: Array) -> Array:
            hit = (wanted == state.step).reshape(-1, *[1] * jnp.ndim(now))
            return jnp.where(hit, now, all_kept)

        return jax.tree.map(one, kept, (state.params, state.stats))

    def body(carry: tuple[TrainState, PyTree], _: None) -> tuple[Any, Metrics]:
        state, kept = carry
        state, metrics = interval(
            recipe, key, hyper, state, train_split, validation, recipe.every, fill
        )
        return (state, store(kept, state)), metrics

    empty = jax.tree.map(
        lambda a: jnp.zeros((len(keep_at), *jnp.shape(a)), a.dtype), (state.params, state.stats)
    )
    begin = (state, store(empty, state))
    (state, kept), metrics = lax.scan(body, begin, None, length=steps // recipe.every)
    return state, metrics, kept


def early_stop(metrics: Metrics) -> Array:
    """The step of the lowest validation loss, the first of several; of stacked metrics."""
    loss = jnp.where(jnp.isnan(metrics["loss"]), jnp.inf, metrics["loss"])
    return metrics["step"][jnp.argmin(loss)]
