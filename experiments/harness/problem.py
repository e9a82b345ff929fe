"""Builds the problem that flags describe: a net, its data and its training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from experiments.harness import memory, photographs, setup
from experiments.harness.flags import left_out, numbers, whole_numbers
from experiments.harness.photographs import Photographs
from experiments.harness.settings import (
    MOST_STEPS,
    MOST_UNITS,
    Bounds,
    choose,
)
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import data, losses, masks, nets, optimizers
from jaxtickets.criteria import Evidence
from jaxtickets.data import augment
from jaxtickets.data import photographs as named_photographs
from jaxtickets.io.errors import UserError
from jaxtickets.optimizers import Hyper
from jaxtickets.penalties import PENALTIES
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Dataset,
    Loss,
    Mask,
    Model,
    Params,
    Prunable,
    Schedule,
    Split,
    Stats,
    Wiring,
)

LEAST_IMAGES = 20
"""Criteria use ten batches, and batch norm over a single image has no gradient."""
UNITS = Bounds(least=1, most=MOST_UNITS)


class Problem(NamedTuple):
    """A net, its data and its training.

    Attributes:
      net: the Flax module.
      dataset: the data set, as arrays on the host. Of photographs that are read from disk it
        holds a sample of the training images only.
      recipe: how the net is trained.
      hyper: learning rate and warm-up steps, scalars.
      prunable: the paths of the leaves that are pruned.
      wiring: the net's groups of units; empty if they are unknown.
      steps: the number of training steps.
      penalty: `penalty(params) -> scalar`, which the loss adds to cross-entropy; None: none.
      smoothing: of the labels in training, see `losses.cross_entropy`.
      ghost_batches: see `nets.ghost_batch_norm`.
      photographs: the batches that are read from disk; None: all of the data set is in memory.
    """

    net: nn.Module
    dataset: Dataset
    recipe: Recipe
    hyper: Hyper
    prunable: Prunable
    wiring: Wiring
    steps: int
    penalty: Callable[[Params], Array] | None = None
    smoothing: float = 0.0
    ghost_batches: int = 1
    photographs: Photographs | None = None

    @property
    def train_size(self) -> int:
        """The number of training images."""
        if self.photographs is not None:
            return self.photographs.training.examples.total
        return len(self.dataset.train.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image, `(h, w, c)`."""
        return self.dataset.train.images.shape[1:]

    @property
    def epoch_steps(self) -> int:
        """The number of training steps in an epoch."""
        return self.train_size // self.recipe.batch_size

    @property
    def activations(self) -> str:
        """The type in which the net computes, such as `float32`."""
        return str(jax.eval_shape(self.recipe.prepare, self.dataset.train.images[:1]).dtype)

    @property
    def param_shapes(self) -> Params:
        """The parameters as shapes and types, without values."""
        return nets.init_shapes(self.recipe.model)[0]

    def evidence(
        self, init_params: Params, params: Params, stats: Stats, mask: Mask, batches: Split
    ) -> Evidence:
        """What criteria look at, with this problem's loss, model and prunable leaves.

        Args:
          init_params: at initialisation.
          params, stats: that are scored.
          mask: what is kept so far.
          batches: raw images and labels, `[batches, size, ...]`.
        """
        return Evidence(
            init_params=init_params,
            params=params,
            stats=stats,
            mask=mask,
            batches=batches,
            loss=self.recipe.loss,
            model=self.recipe.model,
            prepare=self.recipe.prepare,
            prunable=self.prunable,
        )

    def loss_of(self, model: Model, penalty: Callable[[Params], Array] | None = None) -> Loss:
        """The training loss of a net on this problem's data, with its labels as smooth.

        Args:
          model: the net as functions.
          penalty: see `Problem`.
        """
        return training_loss(
            model, self.recipe.prepare, penalty, self.smoothing, self.ghost_batches
        )

    def with_recipe(self, **changes: Any) -> "Problem":
        """The same problem with some fields of its recipe changed."""
        return self._replace(recipe=self.recipe._replace(**changes))

    def with_net(
        self, net: nn.Module, penalty: Callable[[Params], Array] | None, wiring: Wiring = ()
    ) -> "Problem":
        """The same data and training with another net.

        Args:
          net: the Flax module.
          penalty: the term that its loss adds to cross-entropy; None: none.
          wiring: its groups of units; empty if they aren't needed.
        """
        model = nets.functional(net, self.image_shape)
        changed = self.with_recipe(model=model, loss=self.loss_of(model, penalty))
        return changed._replace(net=net, penalty=penalty, wiring=wiring)


def build(
    net: NetSettings,
    train: TrainSettings,
    data_dir: str,
    prepare: bool,
    precision: str = "float32",
) -> Problem:
    """Builds the problem: checks that net, data and training fit together, and loads the data.

    Args:
      net: the net and the data set.
      train: the training.
      data_dir: the folder of prepared TFDS data; empty for TFDS's default.
      prepare: whether to prepare the data set first.
      precision: one of `flags.PRECISIONS`; in bfloat16 the net computes in it, see `nets.layers`.

    Raises:
      UserError: a name is unknown, or the settings don't fit each other, the data or the memory.
      DataError: the data set isn't there or is damaged.
    """
    choose("model", net.model, nets.names())
    choose("dataset", net.dataset.partition(":")[0], (*data.NAMES, *named_photographs.NAMES))
    if train.batch_size % train.accumulate:
        raise UserError(
            f"--accumulate={train.accumulate}: must divide --batch_size={train.batch_size}"
        )
    if train.batch_size // train.accumulate % train.ghost_batches:
        raise UserError(
            f"--ghost_batches={train.ghost_batches}: must divide the "
            f"{train.batch_size // train.accumulate} examples that are computed at once"
        )
    size, opened = photographs.image_size(net), None
    if size and prepare:
        raise UserError(f"--prepare: {net.dataset} must be there already, see --data_dir")
    if size:
        opened = named_photographs.load(net.dataset, data_dir or None)
    shape = (size, size, 3) if opened else data.shape(net.dataset)
    classes = opened.classes if opened else data.classes(net.dataset)
    attributes: dict[str, Any] = {"classes": classes, "use_bias": net.use_bias}
    if net.initializer:
        attributes["initializer"] = net.initializer
    if net.batch_norm:
        attributes["batch_norm"] = True
    if net.remat:
        attributes["remat"] = True
    if net.widths:
        attributes["widths"] = whole_numbers("widths", net.widths.split(","), UNITS)
    try:
        module = nets.make(net.model, shape=shape, **attributes)
        nets.check_fits(module, shape, classes)
    except ValueError as error:
        theirs = net.widths and left_out("widths") and "widths" in str(error)
        why = f": the preset gives --widths={net.widths}; --widths= takes those as published"
        raise UserError(f"{error}{why if theirs else ''}") from error
    model = nets.functional(module, shape)
    params = nets.init_shapes(model)[0]
    taken = memory.training(params)
    widths = f" --widths={net.widths}" if net.widths else ""
    memory.check_memory(f"--model={net.model}{widths}", 1, taken, "trainings")
    memory.check_memory(f"--seeds={net.seeds}", net.seeds, taken, "trainings")
    streams = photographs.streams(opened, net, train) if opened else None
    if opened and streams:
        dataset = photographs.in_memory(opened, streams, setup.cores())
        total = streams.training.examples.total
        if len(dataset.train.labels) < LEAST_IMAGES:
            raise UserError(
                f"{dataset.name} has {len(dataset.train.labels)} training images: "
                f"{LEAST_IMAGES} or more are needed"
            )
    else:
        dataset = _shortened(data.load(net.dataset, data_dir or None, prepare), net.train_images)
        total = len(dataset.train.labels)
    if train.batch_size > total:
        raise UserError(f"--batch_size={train.batch_size}: there are only {total} training images")
    epoch = total // train.batch_size
    steps, every = train.iterations or epoch * train.epochs, train.look_every or epoch
    if steps > MOST_STEPS:
        raise UserError(f"{steps} training steps: must be {MOST_STEPS} or less, lower --epochs")
    if steps % every:
        raise UserError(f"{steps} training steps: must be a multiple of --look_every={every}")
    if train.test_every % every:
        raise UserError(
            f"--test_every={train.test_every}: must be a multiple of {every}, the steps between "
            "evaluations (--look_every)"
        )
    if train.test_every and steps % train.test_every:
        raise UserError(f"--test_every={train.test_every}: must divide the {steps} training steps")
    warmup = round(train.warmup_epochs * epoch) or train.warmup
    normalise = partial(
        augment.normalise,
        mean=dataset.mean,
        std=dataset.std,
        dtype=jnp.bfloat16 if precision == "bfloat16" else jnp.float32,
    )
    penalty = penalty_of(train, module, params)
    return Problem(
        net=module,
        dataset=dataset,
        recipe=recipe_of(
            train=train,
            model=model,
            prepare=normalise,
            penalty=penalty,
            augmentation=augmentation_of(train, shape, crops=not streams),
            steps=steps,
            every=every,
        ),
        hyper=Hyper(*jax.device_put((np.float32(train.learning_rate), np.int32(warmup)))),
        prunable=masks.prunable(params, () if net.prune_output else (nets.output_layer(module),)),
        wiring=nets.wiring(module, shape),
        steps=steps,
        penalty=penalty,
        smoothing=train.label_smoothing,
        ghost_batches=train.ghost_batches,
        photographs=streams,
    )


def training_loss(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None,
    smoothing: float,
    ghost_batches: int,
) -> Loss:
    """The training loss of a net as functions; the other arguments are explained in `Problem`."""
    ghostly = nets.ghost_batch_norm(model, ghost_batches)
    return losses.classification(ghostly, prepare, penalty, smoothing)


def recipe_of(
    train: TrainSettings,
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None,
    augmentation: augment.Augment | None,
    steps: int,
    every: int,
) -> Recipe:
    """How a net is trained.

    Args:
      train: the settings.
      model: the net as functions.
      prepare, penalty, every: see `Recipe` and `losses.classification`.
      augmentation: see `augmentation_of`.
      steps: the number of training steps.

    Raises:
      UserError: see `optimizer_of`.
    """
    return Recipe(
        model=model,
        loss=training_loss(model, prepare, penalty, train.label_smoothing, train.ghost_batches),
        optimizer=optimizer_of(train, steps),
        prepare=prepare,
        augment=augmentation,
        batch_size=train.batch_size,
        every=every,
        evaluations_per_test=train.test_every // every,
        parts=train.accumulate,
        average=train.ema,
    )


def augmentation_of(
    train: TrainSettings, shape: Sequence[int], crops: bool = True
) -> augment.Augment | None:
    """What is done to training images on the device; None: nothing.

    Args:
      train: the settings.
      shape: `(h, w, c)` of the images.
      crops: whether the device crops and flips; False if the images come so.

    Raises:
      UserError: images without colours have none to change.
    """
    if train.colours and shape[-1] != 3:
        raise UserError(f"--colours={train.colours}: the images have {shape[-1]} channel, not 3")
    steps = [augment.standard] if train.augmented and crops else []
    return augment.in_turn([*steps, *([augment.COLOURS[train.colours]] if train.colours else [])])


def _shortened(dataset: Dataset, size: int) -> Dataset:
    """The data set with only its first `size` training images; with all of them if 0."""
    there = len(dataset.train.labels)
    if size > there or 0 < size < LEAST_IMAGES:
        advice = f"{dataset.name} has {there}" if size > there else f"give {LEAST_IMAGES} or more"
        raise UserError(f"--train_images={size}: {advice}")
    return dataset._replace(train=jax.tree.map(lambda x: x[: size or there], dataset.train))


def penalty_of(
    train: TrainSettings, net: nn.Module, params: Params
) -> Callable[[Params], Array] | None:
    """The penalty times its strength, as a function of the parameters; None for no penalty.

    Args:
      train: names the penalty and its strength.
      net: the net.
      params: its parameters, or their shapes.

    Raises:
      UserError: the net has no parameters of the kind that the penalty is on.
    """
    if not train.penalty:
        return None
    measure, output = PENALTIES[train.penalty], nets.output_layer(net)

    def penalty(params: Params) -> Array:
        return train.penalty_strength * measure(params, output)

    try:
        jax.eval_shape(penalty, params)
    except ValueError as error:
        message = f"--penalty={train.penalty} with {nets.name_of(net)}: {error}"
        raise UserError(message) from error
    return penalty


def optimizer_of(
    train: TrainSettings, steps: int
) -> Callable[[Hyper], optax.GradientTransformation]:
    """The optimiser of a training of `steps` steps, as a function of the hyperparameters of a run.

    Raises:
      UserError: `--drops` aren't fractions of the training, or two fall on the same step.
    """
    decay = _decay_of(train, steps)

    def optimizer(hyper: Hyper) -> optax.GradientTransformation:
        return optimizers.optimizer(
            train.optimizer,
            hyper.rate,
            decay,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            warmup=hyper.warmup,
            decay_all=train.decay_all,
        )

    return optimizer


def shorter(problem: Problem, train: TrainSettings, epochs: int, rate: float) -> Problem:
    """The problem with a training of some epochs, at a share of the learning rate, without warm-up.

    Args:
      problem: the net and its training.
      train: the settings that it was built from.
      epochs: the length of the training.
      rate: the peak learning rate, as a fraction of the problem's.
    """
    steps = problem.epoch_steps * epochs
    changed = problem.with_recipe(
        optimizer=optimizer_of(train, steps), every=problem.epoch_steps, evaluations_per_test=0
    )
    hyper = Hyper(problem.hyper.rate * rate, jnp.int32(0))
    return changed._replace(hyper=hyper, steps=steps)


def learning_rate_of(train: TrainSettings, steps: int) -> Callable[[Any], Schedule]:
    """The learning rate of `optimizer_of`, as a function of what has the fields of `Hyper`."""
    decay = _decay_of(train, steps)
    return lambda hyper: optimizers.learning_rate(hyper.rate, decay, hyper.warmup)


def _decay_of(train: TrainSettings, steps: int) -> Schedule:
    drops = numbers("drops", train.drops.split(","))
    if train.learning_rates == "steps":
        if not all(0 < drop < 1 for drop in drops):
            raise UserError(
                f"--drops={train.drops}: must be fractions of the training, between 0 and 1"
            )
        if len({round(drop * steps) for drop in drops}) < len(drops):
            raise UserError(
                f"--drops={train.drops}: two fall on the same one of the {steps} training steps"
            )
    return optimizers.decay_shape(train.learning_rates, steps, drops, last=train.last_rate)


def on_device(dataset: Dataset) -> Dataset:
    """The data set with its splits on the default device."""
    names = ("train", "validation", "test")
    splits = {name: jax.tree.map(jnp.asarray, getattr(dataset, name)) for name in names}
    return dataset._replace(**splits)
