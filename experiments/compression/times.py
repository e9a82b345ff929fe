"""The latency of pruned nets: as they are, by sparse products, and without units out of use."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.compression import pruning
from experiments.compression.files import without_units
from experiments.harness import cached_trainings, timing
from experiments.harness.rows import Row
from experiments.harness.session import Session
from jaxtickets import masks, nets
from jaxtickets.compress import sparse
from jaxtickets.types import Array, Params, Stats, Ticket

BATCHES = (1, 128)
"""The numbers of images in a call."""
LENETS = ("lenet300_100", "lenet5")
"""The nets that `sparse.forward` computes."""
FORM = sparse.FORMS["gathered"]


def times(session: Session, rows: Sequence[Row], repeats: int) -> dict[tuple[str, str, float], Row]:
    """(stage, method, density) -> the columns of latency of the first seed's net.

    The dense net, the pruned one by sparse products, where there are any for the net, and the dense
    one without units out of use are called in turns. `milliseconds_N` is the median time of a call
    with N images, `speed_up_N` the dense net's over it.

    Args:
      session: the run.
      rows: of pruned nets, each with its ticket and its stage.
      repeats: timed calls.
    """
    found: dict[tuple[str, str, float], Row] = {}
    for row in rows:
        if row["seed"] != session.seeds[0].number:
            continue
        phase = f"times-{row['ticket']}"
        known = cached_trainings.known(session.folder, phase)
        if not known:
            known = _times(session, pruning.load(session, row["ticket"]), row["stage"], repeats)
            cached_trainings.keep(session.folder, phase, known)
        for one in known:
            own = {name: value for name, value in one.items() if name != "stage"}
            found[one["stage"], row["method"], row["density"]] = own
    return found


def _times(session: Session, ticket: Ticket, stage: str, repeats: int) -> list[Row]:
    problem = session.problem
    net, small = without_units(session, ticket)
    made: dict[str, Row] = {name: {"stage": name} for name in (stage, "units_removed")}
    makers = [_dense_call(problem.net, ticket), _dense_call(net, small)]
    if nets.name_of(problem.net) in LENETS:
        makers.append(_sparse_call(problem.net, problem.image_shape, ticket))
    for batch in BATCHES:
        images = jnp.zeros((batch, *problem.image_shape))
        calls = [partial(call, images) for call in makers]
        dense, *others = timing.median_times(calls, repeats)
        for name, taken in zip(("units_removed", stage), others, strict=False):
            made[name] |= {
                f"milliseconds_{batch}": round(1000 * taken, 4),
                f"speed_up_{batch}": round(dense / taken, 3),
            }
    return [row for row in made.values() if len(row) > 1]


def _dense_call(net: nn.Module, ticket: Ticket) -> Callable[[Array], jax.Array]:
    params = masks.apply(ticket.mask, ticket.params)

    @jax.jit
    def logits(params: Params, stats: Stats, images: Array) -> jax.Array:
        return nets.functional(net, images.shape[1:]).apply(params, stats, images)[0]

    return partial(logits, params, ticket.stats)


def _sparse_call(
    net: nn.Module, shape: Sequence[int], ticket: Ticket
) -> Callable[[Array], jax.Array]:
    paths = nets.positions(net, shape)
    layers = sparse.layers(ticket.params, [path.removesuffix("/kernel") for path in paths])
    held = sparse.hold(FORM, ticket.mask, masks.apply(ticket.mask, ticket.params))
    forward = jax.jit(partial(sparse.forward, FORM, layers))
    return partial(forward, held.patterns, held.weights)
