"""Masked training: one primitive that advances a state over batches, and a loop over it.

After every step, `params == where(mask, params, fill)`, bit for bit. The loss is differentiated at
the masked weights. A sparse optimiser (`dynamic`) holds the mask, passes only the gradients of kept
weights to its inner optimiser, and may change the mask. Keys are folded from the step, so that a
training gives the same numbers however it is cut into chunks, and resuming needs only the state.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxtickets import losses, masks, optimizer_states, runs, weight_average
from jaxtickets.data import batches as data_batches
from jaxtickets.dynamic.base import Sparsify
from jaxtickets.dynamic.static import sparsify as static
from jaxtickets.losses import CLASSIFICATION, Task
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Array, Key, Loss, Mask, Model, Params, PyTree, Split, Stats, TrainState

Fetch = Callable[[Key, PyTree], Split]
"""`fetch(key, element) -> Split`: the batch of an element of the scan, such as example indices."""

Metrics = dict[str, Any]
Steps = Callable[[PyTree, Key, TrainState, PyTree, Fetch], tuple[TrainState, Metrics]]
"""`steps(hyper, key, state, batches, fetch) -> (state, metrics)`: like `advance`, for a recipe's
hyperparameters."""


def init(
    params: Params,
    stats: Stats,
    optimizer: optax.GradientTransformationExtraArgs,
    fill: Params | None = None,
    method_state: PyTree = (),
    step: Array | int = 0,
    average: float = 0.0,
) -> TrainState:
    """The state before the first step; masks `params`.

    A rewound training starts at a `step` above 0: the order of the data and the learning rate
    resume from that step, while the optimiser's moments are reset.

    Args:
      params, stats: the parameters and statistics at the start.
      optimizer: a sparse optimiser, such as `dynamic.static.masked`.
      fill: the values where the mask is False; None for zero.
      method_state: what a pruning method carries through the training.
      step: the training step that the parameters come from.
      average: the decay of the moving average that the state's weights are, see `weight_average`;
        0: they are the trained ones.

    Raises:
      ValueError: the mask or the fill does not match the parameters (`masks.apply`), `step` is not
        0 and the optimiser cannot resume from it (`optimizer_states.at_step`), or `average` is not
        in [0, 1).

    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.1), {"w": np.array([True, False])})
    >>> state = init({"w": jnp.array([3.0, 4.0])}, {}, optimizer)
    >>> state.params["w"].tolist(), int(state.step)
    ([3.0, 0.0], 0)
    """
    opt_state = optimizer.init(params)
    params = masks.apply(opt_state.mask, params, fill)
    opt_state = optimizer_states.at_step(optimizer, opt_state, params, step)
    trained = weight_average.begin(params, stats, average)
    return TrainState(params, stats, opt_state, method_state, jnp.asarray(step, jnp.int32), trained)


def step(
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    key: Key,
    state: TrainState,
    batch: Split,
    parts: int = 1,
    **extra: Any,
) -> tuple[TrainState, Metrics]:
    """One masked training step; the key is consumed. The optimiser's update receives `extra`.

    With several `parts`, the gradient is the mean of those of equal parts of the batch, which are
    computed one after another, in the memory of one. Metrics are means as well. Batch norm sees
    each part on its own, and its statistics move once a part; without batch norm and dropout, the
    gradient is the whole batch's up to rounding.

    Raises:
      ValueError: the parts do not divide the batch.

    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.5), {"w": np.array([True, False])})
    >>> state = init({"w": jnp.array([3.0, 4.0])}, {}, optimizer)
    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch), (stats, {}))
    >>> state, _ = step(loss, optimizer, jax.random.key(0), state, jnp.array([2.0, 2.0]))
    >>> state.params["w"].tolist(), int(state.step)
    ([2.0, 0.0], 1)
    """
    if isinstance(batch, Split):
        check_leading("the batch", batch, ("n",))
    params, old = weight_average.trained(state)
    gradient, stats, metrics = _differentiate(loss, params, old, batch, key, parts)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params, **extra)
    params = optax.apply_updates(params, updates)
    state = weight_average.after(state._replace(opt_state=opt_state), params, stats)
    return state._replace(step=state.step + 1), metrics


def _differentiate(
    loss: Loss, params: Params, stats: Stats, batch: Split, key: Key, parts: int
) -> tuple[Params, Stats, Metrics]:
    """The gradient of a batch, the new statistics and the metrics; see `step`."""
    differentiate = jax.value_and_grad(loss, has_aux=True)

    def of_part(stats: Stats, batch: Split, key: Key) -> tuple[Stats, tuple[Params, Metrics]]:
        (_, (new, metrics)), gradient = differentiate(params, stats, runs.divide(batch), key)
        return _next_stats(new, stats), (gradient, metrics)

    if parts == 1:
        stats, (gradient, metrics) = of_part(stats, batch, key)
        return gradient, stats, metrics
    n = jax.tree.leaves(batch)[0].shape[0]
    if parts < 1 or n % parts:
        raise ValueError(f"a batch of {n} can't be computed in {parts} equal parts")

    def add(
        carry: tuple[Stats, PyTree], part: tuple[Split, Key]
    ) -> tuple[tuple[Stats, PyTree], None]:
        stats, seen = of_part(carry[0], *part)
        return (stats, jax.tree.map(lambda total, x: total + x / parts, carry[1], seen)), None

    pieces = jax.tree.map(lambda a: a.reshape(parts, n // parts, *a.shape[1:]), batch)
    keys = jax.random.split(key, parts)
    _, shapes = jax.eval_shape(of_part, stats, *runs.take((pieces, keys), 0))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (stats, (gradient, metrics)), _ = lax.scan(add, (stats, zero), (pieces, keys))
    return gradient, stats, metrics


def _next_stats(new: Stats, old: Stats) -> Stats:
    """The statistics that a loss returns, cast to the float dtypes of the previous ones.

    Without the cast, 64-bit images would turn 32-bit batch-norm statistics into 64-bit ones.

    Raises:
      ValueError: they do not have the structure of the previous ones.
    """
    masks.check_like(new, old, "the new statistics", "the state's")

    def leaf(now: Array, before: Array) -> Array:
        kinds = jnp.result_type(now), jnp.result_type(before)
        floats = all(jnp.issubdtype(kind, jnp.floating) for kind in kinds)
        return now.astype(kinds[1]) if floats and kinds[0] != kinds[1] else now

    return jax.tree.map(leaf, new, old)


def advance(
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: Fetch | None = None,
    parts: int = 1,
    **extra: Any,
) -> tuple[TrainState, Metrics]:
    """Takes one training step for each element of `batches`, in a scan.

    Args:
      loss: the training loss.
      optimizer: the sparse optimiser whose state is in `state`.
      key: the run's key, the same for all chunks of a run; step t uses `fold_in(key, t)`.
      state: the state before the first batch.
      batches: PyTree with a leading axis of steps: a stacked `Split`, or elements for `fetch`.
      fetch: `(key, element) -> Split`; the identity by default.
      parts: the number of parts in which a batch is computed, see `step`.
      **extra: further arguments of the optimiser's update, the same at every step.

    Returns:
      The state after the last batch, and the loss' metrics, `[steps]` each.

    Raises:
      ValueError: leaves of `batches` disagree on the number of steps, or those of a batch on the
        number of examples.

    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.5), {"w": np.array([True, False])})
    >>> state = init({"w": jnp.array([3.0, 4.0])}, {}, optimizer)
    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch), (stats, {}))
    >>> batches = jnp.array([[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    >>> state, _ = advance(loss, optimizer, jax.random.key(0), state, batches)
    >>> state.params["w"].tolist(), int(state.step)
    ([1.0, 0.0], 3)
    """
    check_leading("the batches", batches, ("steps",))

    def body(state: TrainState, element: PyTree) -> tuple[TrainState, Metrics]:
        fetch_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = fetch(fetch_key, element) if fetch else element
        return step(loss, optimizer, loss_key, state, batch, parts, **extra)

    return lax.scan(body, state, batches)


def evaluate(
    model: Model,
    prepare: Callable[[Array], Array],
    params: Params,
    stats: Stats,
    split: Split,
    batch_size: int = 1000,
    task: Task = CLASSIFICATION,
) -> Metrics:
    """The mean loss and measures over all of `split` in evaluation mode, one batch at a time.

    Args:
      model, params, stats: the net.
      prepare: uint8 images -> normalised float images, or other inputs -> those of the task.
      split: the examples.
      batch_size: the number of examples in a batch.
      task: what the net is asked.

    Returns:
      `{"loss", and each of task.measures}`, float scalars: of classes, nats and the accuracy, a
      fraction. They are NaN if a label is not one of the net's classes.

    Raises:
      ValueError: `batch_size` is below 1, there is no example, images and labels disagree on their
        number, or a label is not one of the classes (the latter is not detected under tracing).

    >>> net = Model(init=None, apply=lambda params, stats, images: (images * params["w"], stats))
    >>> split = Split(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 1, 0]))
    >>> metrics = evaluate(net, lambda images: images, {"w": jnp.float32(3)}, {}, split)
    >>> round(float(metrics["accuracy"]), 3), round(float(metrics["loss"]), 3)
    (0.667, 1.049)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be 1 or more")
    _check_labels(model, prepare, params, stats, split, task)
    n = split.labels.shape[0]
    batch_size = min(batch_size, n)
    whole = n // batch_size

    @partial(jax.jit, inline=True)  # traced once, for its shapes and in the scan
    def totals(part: Split) -> Metrics:
        part = runs.divide(part)
        inputs, targets = task.read(prepare(part.images), part.labels)
        outputs, _ = model.apply(params, stats, inputs)
        size = part.labels.shape[0]
        return {
            "loss": task.loss(outputs, targets).astype(float) * size,
            **{name: jnp.sum(of(outputs, targets)) for name, of in task.measures},
        }

    def body(total: Metrics, part: Split) -> tuple[Metrics, None]:
        return jax.tree.map(jnp.add, total, totals(part)), None

    head = jax.tree.map(lambda a: a[: whole * batch_size], split)
    parts = jax.tree.map(lambda a: a.reshape(whole, batch_size, *a.shape[1:]), head)
    first = jax.eval_shape(totals, jax.tree.map(lambda a: a[0], Split(*parts)))
    zero = jax.tree.map(lambda a: jnp.zeros((), a.dtype), first)
    total, _ = lax.scan(body, zero, Split(*parts))
    if n % batch_size:
        rest = jax.tree.map(lambda a: a[whole * batch_size :], split)
        total = jax.tree.map(jnp.add, total, totals(Split(*rest)))
    return {name: value / n for name, value in total.items()}


class Totals(NamedTuple):
    """Sums over examples, which are added part by part, see `evaluate_parts`.

    Attributes:
      loss: float scalar, in nats.
      hits: int32 scalar, the examples whose class is the net's first choice.
      examples: int32 scalar, how many there were.
    """

    loss: Array
    hits: Array
    examples: Array


def no_totals() -> Totals:
    """The totals of no example.

    >>> tuple(map(float, no_totals()))
    (0.0, 0.0, 0.0)
    """
    return Totals(jnp.zeros((), float), jnp.int32(0), jnp.int32(0))


def evaluate_parts(
    model: Model,
    prepare: Callable[[Array], Array],
    params: Params,
    stats: Stats,
    parts: Split,
    valid: Array,
    total: Totals,
) -> Totals:
    """Adds batches to the totals of an evaluation whose examples don't fit on the device at once.

    Args:
      model, prepare, params, stats: as in `evaluate`.
      parts: batches of examples, `[parts, b, ...]`.
      valid: bool`[parts, b]`; the other rows, which fill up batches, count nothing.
      total: the totals of the parts before.

    Returns:
      The totals, of which `mean_of` gives what `evaluate` returns for all valid examples together,
      up to the rounding of sums.

    >>> net = Model(init=None, apply=lambda params, stats, images: (images, stats))
    >>> parts = Split(np.array([[[1.0, 0.0], [0.0, 1.0]]]), np.array([[0, 0]]))
    >>> valid = np.array([[True, False]])
    >>> total = evaluate_parts(net, lambda images: images, {}, {}, parts, valid, no_totals())
    >>> int(total.hits), int(total.examples)
    (1, 1)
    """
    check_array("valid", valid, np.shape(parts.labels), bool)

    def body(total: Totals, part: tuple[Split, Array]) -> tuple[Totals, None]:
        split, valid = runs.divide(part)
        logits, _ = model.apply(params, stats, prepare(split.images))
        nats = jax.vmap(losses.cross_entropy)(logits[:, None], split.labels[:, None])
        hits = (jnp.argmax(logits, -1) == split.labels) & valid
        return Totals(
            loss=total.loss + jnp.sum(jnp.where(valid, nats, 0).astype(float)),
            hits=total.hits + jnp.sum(hits, dtype=jnp.int32),
            examples=total.examples + jnp.sum(valid, dtype=jnp.int32),
        ), None

    return lax.scan(body, total, (parts, valid))[0]


def mean_of(total: Totals) -> Metrics:
    """`{"loss", "accuracy"}` of the examples in `total`, see `evaluate`; NaN if there is none.

    >>> mean_of(Totals(loss=6.0, hits=3, examples=4))
    {'loss': 1.5, 'accuracy': 0.75}
    """
    return {"loss": total.loss / total.examples, "accuracy": total.hits / total.examples}


def _check_labels(
    model: Model,
    prepare: Callable[[Array], Array],
    params: Params,
    stats: Stats,
    split: Split,
    task: Task,
) -> None:
    """Raises ValueError unless there are examples, whose labels are classes if the task has any.

    Under tracing, the values of labels are not checked.
    """
    (n,) = check_leading("the examples", split, ("n",))
    if n == 0:
        raise ValueError("the examples: there is none")
    if not task.classes:
        return
    check_array("the labels", split.labels, (n,), int)
    if isinstance(split.labels, jax.core.Tracer):
        return

    def logits(params: Params, stats: Stats, images: Array) -> Array:
        return model.apply(params, stats, prepare(images))[0]

    one = jax.ShapeDtypeStruct((1, *split.images.shape[1:]), jnp.result_type(split.images))
    losses.check_labels(split.labels, jax.eval_shape(logits, params, stats, one).shape[-1])


class Moves(NamedTuple):
    """Moves of the mask by the gradient of many images instead of one batch.

    Attributes:
      every: the number of training steps between two moves; divides `Recipe.every`.
      images: the number of images of the gradient, drawn again for each move; fewer if they do not
        fill whole batches, see `data.batches.whole`.
    """

    every: int
    images: int


class Recipe(NamedTuple):
    """How a net is trained; static. Whatever varies between runs is passed as an argument.

    Attributes:
      model: the net as functions.
      loss: the training loss.
      optimizer: `optimizer(hyper) -> optax optimiser`, called inside the traced run.
      prepare: uint8 images -> normalised float images.
      augment: `(key, images) -> images` on uint8 images, or None.
      batch_size: examples in a step; the incomplete last batch of an epoch is dropped.
      every: the number of steps between two validation evaluations.
      evaluations_per_test: the number of validation evaluations for one test evaluation, which only
        serves the record; 0 for no test evaluations.
      before_evaluation: `params -> params`, applied before each validation evaluation in
        `train_chunk`, such as soft filter pruning; None for no change. Pruned weights keep their
        fill.
      sparsify: turns the optimiser into a sparse one with an initial mask, see `dynamic`.
      moves: when the loop moves the mask; None lets the optimiser count its calls.
      steps: takes the training steps in another way than `advance`, to the same numbers up to
        rounding, such as `compress.packed_training`; None for `advance`. Moves stay as they are.
      record: `record(state) -> metrics`, scalars that are recorded at each validation evaluation;
        None for none.
      parts: the number of parts in which a step's batch is computed, see `step`.
      average: the decay of the weights' moving average, see `init`; 0 for none. Evaluations, the
        early stop, `kept` and the final weights are then the average's.
      task: what the net is asked in evaluations; `loss` says it for training.
    """

    model: Model
    loss: Loss
    optimizer: Callable[[PyTree], optax.GradientTransformation]
    prepare: Callable[[Array], Array]
    augment: Callable[[Key, Array], Array] | None
    batch_size: int
    every: int
    evaluations_per_test: int = 0
    before_evaluation: Callable[[Params], Params] | None = None
    sparsify: Sparsify = static
    moves: Moves | None = None
    record: Callable[[TrainState], Metrics] | None = None
    steps: Steps | None = None
    parts: int = 1
    average: float = 0.0
    task: Task = CLASSIFICATION


class Splits(NamedTuple):
    """The data of a training, on the device; see `Split` for shapes and dtypes.

    Attributes:
      train, validation: the training and validation data.
      test: the test data; None if the recipe never evaluates it.
    """

    train: Split
    validation: Split
    test: Split | None = None


class Watched(NamedTuple):
    """A training in progress, with its early stop: the lowest validation loss so far.

    Attributes:
      state: the current state.
      params, stats: the parameters and statistics at the early stop, the first evaluation with the
        lowest validation loss; the initial ones before any evaluation.
      loss: float scalar, the validation loss at the early stop, in nats; infinite before any
        evaluation.
      step: int32 scalar, the step of the early stop.
      kept: `(params, stats)` at the requested steps, stacked in the order of the request; zero
        before they are reached.
    """

    state: TrainState
    params: Params
    stats: Stats
    loss: Array
    step: Array
    kept: tuple[Params, Stats]


def watch(state: TrainState, keep_at: tuple[int, ...] = ()) -> Watched:
    """A training before its first step that will store its parameters at the steps `keep_at`.

    >>> state = TrainState({"w": jnp.ones(3)}, {}, (), (), step=jnp.int32(0))
    >>> watched = watch(state, keep_at=(0, 10))
    >>> kept, _ = watched.kept
    >>> float(watched.loss), kept["w"].tolist()
    (inf, [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    """
    empty = jax.tree.map(
        lambda a: jnp.zeros((len(keep_at), *jnp.shape(a)), a.dtype), (state.params, state.stats)
    )
    kept = _keep(empty, state, keep_at)
    return Watched(state, state.params, state.stats, jnp.asarray(jnp.inf, float), state.step, kept)


def fetcher(recipe: Recipe, train: Split) -> Fetch:
    """`fetch(key, index[batch]) -> Split`: these training examples, augmented by the recipe.

    >>> double = lambda key, images: 2 * images
    >>> recipe = Recipe(None, None, None, None, augment=double, batch_size=2, every=1)
    >>> fetch = fetcher(recipe, Split(np.array([1, 2, 3]), np.array([0, 1, 2])))
    >>> batch = fetch(jax.random.key(0), np.array([2, 0]))
    >>> batch.images.tolist(), batch.labels.tolist()
    ([6, 2], [2, 0])
    """

    on_device = Split(*map(jnp.asarray, train))

    def fetch(key: Key, index: Array) -> Split:
        return augmented(recipe, key, Split(on_device.images[index], on_device.labels[index]))

    return fetch


def augmented(recipe: Recipe, key: Key, batch: Split) -> Split:
    """A batch of training examples, augmented by the recipe.

    >>> double = lambda key, images: 2 * images
    >>> recipe = Recipe(None, None, None, None, augment=double, batch_size=2, every=1)
    >>> batch = Split(np.array([1, 3]), np.array([0, 1]))
    >>> augmented(recipe, jax.random.key(0), batch).images.tolist()
    [2, 6]
    """
    if recipe.augment is None:
        return batch
    return Split(recipe.augment(key, batch.images), batch.labels)


def train_chunk(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    watched: Watched,
    data: Splits,
    evaluations: int,
    keep_at: tuple[int, ...] = (),
    fill: Params | None = None,
) -> tuple[Watched, Metrics]:
    """Trains for `evaluations · recipe.every` steps, and evaluates after every `recipe.every`.

    Args:
      recipe: how to train.
      key: the run's key, the same for all chunks of the run.
      hyper: the argument of `recipe.optimizer`, such as a learning rate.
      watched: the training so far.
      data: on the device.
      evaluations: the number of validation evaluations; static; a multiple of
        `recipe.evaluations_per_test` if the test data are evaluated.
      keep_at: as in `watch`.
      fill: the values where the mask is False, see `init`.

    Returns:
      The training, and its metrics: `"train_loss"[evaluations, every]`; `"step"`,
        `"train_accuracy"`, `"loss"` and `"accuracy"`, `[evaluations]` each, where `step` is the
        number of steps taken and the last two are of the validation data; the metrics of
        `recipe.record`; and, with test data, `"test_accuracy"[evaluations / evaluations_per_test]`,
        after the last evaluation of each group.

    Raises:
      ValueError: `evaluations` is not a multiple of `recipe.evaluations_per_test`, or a label is
        not one of the net's classes (under tracing, the loss and the weights become NaN instead).

    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> recipe = Recipe(net, loss, optax.sgd, lambda images: images, None, batch_size=2, every=5)
    >>> params, mask = {"w": jnp.zeros((2, 2))}, {"w": jnp.eye(2, dtype=bool)}
    >>> state = init(params, {}, recipe.sparsify(optax.sgd(0.5), mask, None, 0.5))
    >>> data = Split(np.eye(2, dtype="float32"), np.array([0, 1]))
    >>> key = jax.random.key(0)
    >>> watched, metrics = train_chunk(recipe, key, 0.5, watch(state), Splits(data, data), 2)
    >>> metrics["step"].tolist(), metrics["accuracy"].tolist(), metrics["train_loss"].shape
    ([5, 10], [1.0, 1.0], (2, 5))
    """
    now = watched.state
    for split in (data.train, data.validation, *([] if data.test is None else [data.test])):
        _check_labels(recipe.model, recipe.prepare, now.params, now.stats, split, recipe.task)
    order_key, step_key, move_key = jax.random.split(key, 3)
    n, steps = data.train.labels.shape[0], evaluations * recipe.every
    index = data_batches.stream(order_key, watched.state.step, steps, n, recipe.batch_size)
    index = index.reshape(evaluations, recipe.every, recipe.batch_size)
    optimizer = recipe.sparsify(recipe.optimizer(hyper), watched.state.mask, fill, hyper)
    fetch = fetcher(recipe, data.train)

    def train_and_evaluate(watched: Watched, index: Array) -> tuple[Watched, Metrics]:
        state, metrics = _steps_and_moves(
            recipe=recipe,
            hyper=hyper,
            optimizer=optimizer,
            step_key=step_key,
            move_key=move_key,
            state=watched.state,
            batches=index,
            fetch=fetch,
            train=data.train,
        )
        state = before_evaluation(recipe, state, fill)
        seen = _evaluated(recipe, state, data.validation)
        return observed(recipe, watched, state, metrics, seen, keep_at)

    test, per_test = data.test, recipe.evaluations_per_test
    if test is None or not per_test:
        return lax.scan(train_and_evaluate, watched, index)

    def group(watched: Watched, index: Array) -> tuple[Watched, tuple[Metrics, Array]]:
        watched, seen = lax.scan(train_and_evaluate, watched, index)
        return watched, (seen, _evaluated(recipe, watched.state, test))

    if evaluations % per_test:
        raise ValueError(
            f"evaluations={evaluations}: must be a multiple of evaluations_per_test={per_test}"
        )
    grouped = index.reshape(-1, per_test, *index.shape[1:])
    watched, (seen, tested) = lax.scan(group, watched, grouped)
    seen = jax.tree.map(lambda a: a.reshape(evaluations, *a.shape[2:]), seen)
    return watched, {**seen, **_test_measures(recipe, tested)}


def _evaluated(recipe: Recipe, state: TrainState, split: Split) -> Metrics:
    """`evaluate` of a state on some data."""
    return evaluate(
        recipe.model, recipe.prepare, state.params, state.stats, split, task=recipe.task
    )


def _test_measures(recipe: Recipe, tested: Metrics) -> Metrics:
    """Test data's metrics that are recorded: the measures, not the loss."""
    return {f"test_{name}": tested[name] for name, _ in recipe.task.measures}


def train_steps(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    state: TrainState,
    batches: Split,
    sample: Split,
    fill: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """The training steps of `train_chunk` for batches from the host; evaluates nothing.

    With the batches that `train_chunk` would take from its data, in any number of pieces, the state
    is the same: up to rounding, as another program computes it. After each `recipe.every` steps
    follow `before_evaluation`, an evaluation by `evaluate_parts`, and `observed`.

    Args:
      recipe, key, hyper, fill: as in `train_chunk`.
      state: the state before the first batch.
      batches: `[steps, b, ...]`, not augmented; with moves of the mask, `steps` is a multiple of
        `recipe.moves.every`.
      sample: training examples from which the images of moves are drawn.

    Returns:
      The state, and the loss' metrics, `[steps]` each.

    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> recipe = Recipe(net, loss, optax.sgd, lambda images: images, None, batch_size=2, every=5)
    >>> params, mask = {"w": jnp.zeros((2, 2))}, {"w": jnp.eye(2, dtype=bool)}
    >>> state = init(params, {}, recipe.sparsify(optax.sgd(1.0), mask, None, 1.0))
    >>> batches = Split(np.eye(2, dtype="float32")[None], np.array([[0, 1]]))
    >>> state, _ = train_steps(recipe, jax.random.key(0), 1.0, state, batches, None)
    >>> state.params["w"].tolist()  # minus the gradient, half of 1/2 - 1
    [[0.25, 0.0], [0.0, 0.25]]
    """
    _, step_key, move_key = jax.random.split(key, 3)
    return _steps_and_moves(
        recipe=recipe,
        hyper=hyper,
        optimizer=recipe.sparsify(recipe.optimizer(hyper), state.mask, fill, hyper),
        step_key=step_key,
        move_key=move_key,
        state=state,
        batches=batches,
        fetch=partial(augmented, recipe),
        train=sample,
    )


def observed(
    recipe: Recipe,
    watched: Watched,
    state: TrainState,
    metrics: Metrics,
    seen: Metrics,
    keep_at: tuple[int, ...] = (),
) -> tuple[Watched, Metrics]:
    """The training after an evaluation, and the metrics of `train_chunk` for it.

    Args:
      recipe: its record.
      watched: the training before the steps.
      state: the state that was evaluated.
      metrics: the loss and the measures of the steps since the last evaluation.
      seen: the loss and the measures on the validation data.
      keep_at: as in `watch`.

    >>> state = TrainState({"w": jnp.ones(1)}, {}, (), (), step=jnp.int32(5))
    >>> recipe = Recipe(None, None, None, None, None, batch_size=2, every=5)
    >>> trained = {"loss": jnp.array([0.9, 0.7]), "accuracy": jnp.array([0.25, 0.75])}
    >>> seen = {"loss": jnp.float32(0.5), "accuracy": jnp.float32(0.75)}
    >>> watched, metrics = observed(recipe, watch(state), state, trained, seen)
    >>> float(watched.loss), float(metrics["train_accuracy"]), float(metrics["accuracy"])
    (0.5, 0.5, 0.75)
    """
    return _watch(watched, state, seen["loss"], keep_at), {
        "step": state.step,
        "train_loss": metrics["loss"],
        **{f"train_{name}": jnp.mean(metrics[name]) for name, _ in recipe.task.measures},
        **seen,
        **(recipe.record(state) if recipe.record else {}),
    }


def train(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    params: Params,
    stats: Stats,
    mask: Mask,
    data: Splits,
    steps: int,
    keep_at: tuple[int, ...] = (),
    fill: Params | None = None,
    start: Array | int = 0,
) -> tuple[Watched, Metrics]:
    """A whole training run: a pure function of its key, parameters, mask and hyperparameters.

    Args:
      recipe, key, hyper, data, fill: as in `train_chunk`.
      params, stats, mask: the initial parameters, statistics and mask.
      steps: the number of training steps.
      keep_at: the steps whose parameters are stored for rewinding: multiples of `recipe.every`.
      start: the step that `params` come from, see `init`.

    Returns:
      The same as `train_chunk`.

    Raises:
      ValueError: `steps` or an entry of `keep_at` is not a multiple of `recipe.every`, or an entry
        is past the end.

    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["w"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> recipe = Recipe(net, loss, optax.sgd, lambda images: images, None, batch_size=2, every=5)
    >>> params, mask = {"w": jnp.zeros((2, 2))}, {"w": jnp.eye(2, dtype=bool)}
    >>> data = Split(np.eye(2, dtype="float32"), np.array([0, 1]))
    >>> key, rate = jax.random.key(0), 0.5
    >>> watched, metrics = train(recipe, key, rate, params, {}, mask, Splits(data, data), steps=10)
    >>> metrics["accuracy"].tolist(), (watched.params["w"] != 0).tolist()
    ([1.0, 1.0], [[True, False], [False, True]])
    """
    for asked in (steps, *keep_at):
        _check_step(asked, recipe.every, steps)
    optimizer = recipe.sparsify(recipe.optimizer(hyper), mask, fill, hyper)
    state = init(params, stats, optimizer, fill, step=start, average=recipe.average)
    begun = watch(state, keep_at)
    return train_chunk(recipe, key, hyper, begun, data, steps // recipe.every, keep_at, fill)


def take_steps(
    recipe: Recipe,
    hyper: PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: Fetch,
    **extra: Any,
) -> tuple[TrainState, Metrics]:
    """Training steps in the recipe's own way, or those of `advance`, with its results.

    Args:
      recipe: its loss, and its steps if it has its own.
      hyper: the argument of `recipe.optimizer`.
      optimizer, key, state, batches, fetch, extra: see `advance`.

    Raises:
      ValueError: the recipe has its own steps, and averages weights or computes in parts.

    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.5), {"w": np.array([True, False])})
    >>> state = init({"w": jnp.array([3.0, 4.0])}, {}, optimizer)
    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch), (stats, {}))
    >>> recipe = Recipe(None, loss, optax.sgd, None, None, batch_size=2, every=1)
    >>> key, batches = jax.random.key(0), jnp.array([[2.0, 2.0], [1.0, 1.0]])
    >>> state, _ = take_steps(recipe, 0.5, optimizer, key, state, batches, fetch=None)
    >>> state.params["w"].tolist(), int(state.step)
    ([1.5, 0.0], 2)
    """
    if recipe.steps is not None:
        if state.trained:
            raise ValueError("steps of a recipe's own do not average weights")
        if recipe.parts > 1:
            raise ValueError("steps of a recipe's own are not computed in parts")
        return recipe.steps(hyper, key, state, batches, fetch)
    return advance(recipe.loss, optimizer, key, state, batches, fetch, recipe.parts, **extra)


def _steps_and_moves(
    recipe: Recipe,
    hyper: PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    step_key: Key,
    move_key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: Fetch,
    train: Split,
) -> tuple[TrainState, Metrics]:
    """`take_steps`, with a move of the mask after each `recipe.moves.every` of them.

    `move_key` is the key of the moves' gradients, whose images are from `train`.
    """
    moves = recipe.moves
    if moves is None:
        return take_steps(recipe, hyper, optimizer, step_key, state, batches, fetch)

    def body(state: TrainState, part: PyTree) -> tuple[TrainState, Metrics]:
        state, metrics = take_steps(
            recipe, hyper, optimizer, step_key, state, part, fetch, move=False
        )
        return move_mask(recipe, optimizer, move_key, state, train, moves.images), metrics

    parts = jax.tree.map(lambda a: a.reshape(-1, moves.every, *a.shape[1:]), batches)
    state, metrics = lax.scan(body, state, parts)
    return state, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), metrics)


def move_mask(
    recipe: Recipe,
    optimizer: optax.GradientTransformationExtraArgs,
    key: Key,
    state: TrainState,
    train: Split,
    images: int,
) -> TrainState:
    """A move of the mask, by the dense gradient of random images, up to a factor.

    Args:
      recipe: the loss, the batch size and the augmentation.
      optimizer: the sparse optimiser whose state is in `state`.
      key: of the run's moves, the same for all; that after t training steps uses `fold_in(key, t)`.
      state: the training before the move.
      train: the training data, on the device.
      images: the number of images, drawn again for each move; fewer if they do not fill whole
        batches, see `data.batches.whole`.

    >>> from jaxtickets.dynamic.base import sparse
    >>> mask = {"w": np.array([[True, True, False, False]])}
    >>> to_the_gradient = lambda view: ({"w": view.gradient["w"] > 0}, ())
    >>> optimizer = sparse(optax.sgd(0.1), mask, move=to_the_gradient)
    >>> state = init({"w": jnp.ones((1, 4))}, {}, optimizer)
    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch.images), (stats, {}))
    >>> recipe = Recipe(None, loss, optax.sgd, None, None, batch_size=1, every=10)
    >>> train = Split(np.array([[0.0, 1.0, 0.0, 5.0]]), np.array([0]))
    >>> state = move_mask(recipe, optimizer, jax.random.key(0), state, train, images=1)
    >>> state.mask["w"].tolist(), state.params["w"].tolist()
    ([[False, True, False, True]], [[0.0, 1.0, 0.0, 0.0]])
    """
    fetch, n = fetcher(recipe, train), train.labels.shape[0]
    params, stats = weight_average.trained(state)
    many, size = data_batches.whole(images, recipe.batch_size)
    draw_key, augment_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    drawn = jax.random.randint(draw_key, (many * size,), 0, n).reshape(many, size)

    def add(total: Params, one: tuple[Key, Key, Array]) -> tuple[Params, None]:
        augment_key, loss_key, index = one
        batch = runs.divide(fetch(augment_key, index))
        gradient, _ = jax.grad(recipe.loss, has_aux=True)(params, stats, batch, loss_key)
        return jax.tree.map(jnp.add, total, gradient), None

    keys = jax.random.split(augment_key, many), jax.random.split(loss_key, many)
    zero = jax.tree.map(jnp.zeros_like, params)
    gradient, _ = lax.scan(add, zero, (keys[0], keys[1], drawn))
    updates, opt_state = optimizer.update(gradient, state.opt_state, params, move=True)
    params = optax.apply_updates(params, updates)
    return weight_average.moved(state._replace(opt_state=opt_state), params)


def _check_step(step: int, every: int, most: int) -> None:
    """Raises ValueError unless `step` is a multiple of `every` from 0 to `most`."""
    if step % every or not 0 <= step <= most:
        raise ValueError(f"step {step}: must be a multiple of {every}, 0 to {most}")


def before_evaluation(recipe: Recipe, state: TrainState, fill: Params | None = None) -> TrainState:
    """The state that is evaluated: changed by `recipe.before_evaluation`, where there is one.

    >>> from jaxtickets.dynamic.static import masked
    >>> optimizer = masked(optax.sgd(0.5), {"w": np.array([True, False])})
    >>> state = init({"w": jnp.array([3.0, 4.0])}, {}, optimizer)
    >>> double = lambda params: {"w": 2 * params["w"]}
    >>> recipe = Recipe(None, None, None, None, None, 2, every=1, before_evaluation=double)
    >>> before_evaluation(recipe, state).params["w"].tolist()
    [6.0, 0.0]
    """
    change = recipe.before_evaluation
    if change is None:
        return state
    return weight_average.changed(
        state, lambda params: masks.apply(state.mask, change(params), fill)
    )


def _watch(watched: Watched, state: TrainState, loss: Array, keep_at: tuple[int, ...]) -> Watched:
    """The training after a validation evaluation; a NaN loss is never the lowest."""
    better = loss < watched.loss
    kept = _keep(watched.kept, state, keep_at)
    now = Watched(state, state.params, state.stats, loss, state.step, kept)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, watched)
    return best._replace(state=state, kept=kept)


def _keep(kept: PyTree, state: TrainState, keep_at: tuple[int, ...]) -> PyTree:
    wanted = jnp.asarray(keep_at, jnp.int32)

    def one(all_kept: Array, now: Array) -> Array:
        hit = (wanted == state.step).reshape(-1, *[1] * jnp.ndim(now))
        return jnp.where(hit, now[None], all_kept)

    return jax.tree.map(one, kept, (state.params, state.stats))
