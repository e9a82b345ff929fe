"""The dense nets at the steps from which pairs of trainings part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from experiments.harness.dense_store import dense_entry
from experiments.harness.session import Session
from experiments.harness.trained_masks import train_entries
from jaxtickets import runs
from jaxtickets.types import Params, Stats


def rewound_nets(session: Session, rewinds: Sequence[int]) -> tuple[Params, Stats]:
    """Parameters and statistics at the rewind steps, stacked: all seeds of a step, then the next.

    Args:
      session: the run.
      rewinds: the rewind steps; nothing is trained if 0 is the only one.
    """
    seeds = session.seeds
    if max(rewinds) == 0:
        return runs.stack([(one.params, one.stats) for one in seeds])
    dense = [dense_entry(session.problem, one) for one in seeds]
    ends, _ = train_entries(
        session, "to the rewind points", dense, keep_at=tuple(rewinds), end=max(rewinds)
    )
    return jax.tree.map(lambda leaf: jnp.concatenate(jnp.moveaxis(leaf, 1, 0)), ends.kept)
