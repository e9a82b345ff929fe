"""Runs a batch of chains in chunks: writes records, can be resumed, and shows a live line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.chain_starts import ChainName
from experiments.harness.chunked_run import check_finite, run_in_chunks
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed
from experiments.harness.session import Session
from jaxtickets import runs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.annealed_search import GroupInteraction, Search
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain, mask_at
from jaxtickets.runs import Blocks, Shared
from jaxtickets.search.annealing import Info
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.types import Array, PyTree


class FoundTicket(NamedTuple):
    """The best of the chains of a density and a seed.

    Attributes:
      density, seed: the density and seed of the chains.
      ticket: bool`[n]`, the bits that validation chose.
      ticket_last: bool`[n]`, the bits that the chain ended with.
      columns: of the ticket's summary row: `search_loss`, the lowest energy of the chain, and
        `search_validation_loss`, the energy of the chosen bits on the validation data.
    """

    density: float
    seed: Seed
    ticket: Array
    ticket_last: Array
    columns: dict[str, float]


FORMATS = {"T": ".1e", "best": ".4f", "mean": ".4f", "accepted": ".0%", "k": ".4g"}


def best(
    settings: AnnealingSettings,
    where: SearchDomain,
    plans: Sequence[ChainName],
    inputs: ChainInputs,
    ends: Chain,
) -> list[FoundTicket]:
    """The best ticket of each density and seed, from the chain with the lowest validation score.

    Args:
      settings: the search.
      where: the domain of the chains.
      plans: the chains.
      inputs: the inputs of the chains, stacked.
      ends: the final states of the chains, stacked.
    """

    @jax.jit
    def bits(row: ChainInputs, point: PyTree) -> Array:
        return where.space.bits(mask_at(where, settings.floor, row, point))

    tickets = []
    for i in winners(plans, ends):
        row, plan = runs.take(inputs, i), plans[i]
        last = ends.state.walk.bits if where.fields is None else ends.state.walk
        ticket, at_end = (bits(row, runs.take(points, i)) for points in (ends.chosen, last))
        tickets.append(FoundTicket(plan.density, plan.seed, ticket, at_end, lowest(ends, i)))
    return tickets


def lowest(ends: Chain, i: int) -> dict[str, float]:
    """The columns of a summary for chain i: its lowest energy, and its validation score."""
    return {
        "search_loss": round(float(ends.state.best_energy[i]), 6),
        "search_validation_loss": round(float(ends.chosen_score[i]), 6),
    }


def winners(plans: Sequence[ChainName], ends: Chain) -> list[int]:
    """The index of the chain with the lowest validation score, for each density and seed."""
    groups: dict[tuple[float, int], list[int]] = {}
    for i, plan in enumerate(plans):
        groups.setdefault((plan.density, plan.seed.number), []).append(i)
    score = np.asarray(ends.chosen_score)
    return [min(members, key=lambda i: score[i]) for members in groups.values()]


def run_chains(
    session: Session,
    phase: str,
    steps: int,
    length: int,
    search: Search,
    chains: PyTree,
    names: list[dict[str, Any]],
    sight: Shared,
    group: int = 1,
    progress: Progress | None = None,
) -> Chain:
    """Runs all chains to their end, and returns their final states, stacked.

    The metrics have a row for each chain and chunk. `energy`, `best_energy`, `temperature` and
    `size` are those of the chunk's last step, `step`; `accepted` is a mean over the chunk. At the
    chunk's end, `hamming` is the distance from the first mask, `drift` the error of sums that are
    updated by differences, and `validation` the score of the mask that is chosen so far.

    Args:
      session, phase: see `run_in_chunks`.
      steps: the number of steps of each chain, a multiple of `length`.
      length: the number of steps in a chunk.
      search: the search of one chain, and the interaction of a group.
      chains: the inputs of the chains, with a leading axis of chains.
      names: the columns that identify each chain in the metrics, such as density, seed and chain.
      sight: the data of the search, on each device.
      group: the number of consecutive chains that interact, if the search has an interaction.
      progress: the live line, if `progress_of` has already announced it.

    Raises:
      UserError: an energy is not finite, or the burn-in found no start temperature.
    """

    axis = session.axis

    def advance_one(
        pair: tuple[PyTree, Chain], start: Array, sight: PyTree
    ) -> tuple[tuple[PyTree, Chain], tuple[Info, ChunkInfo]]:
        row, chain = pair
        chain, info, end = search.chunk(row, chain, start, sight)
        return (row, chain), (info, end)

    advance = runs.batch(advance_one, axis)

    interaction = search.interaction
    begin_groups, interact_groups = _of_groups(interaction, group) if interaction else (None, None)
    group_inputs = runs.take(chains, np.arange(0, len(names), group)) if interaction else None
    own_data = runs.own(sight) if interaction else None

    def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
        if interact_groups is not None and i:
            rows, states = runs.unzip(blocks)
            after = interact_groups(group_inputs, runs.join(states), np.int32(i * length), own_data)
            blocks = runs.zip_(rows, runs.split(after, axis))
        start = runs.share(np.int32(i * length), axis)
        return runs.unzip(advance(blocks, start, sight))

    def report(i: int, seen: tuple[Info, ChunkInfo]) -> tuple[list[dict[str, Any]], dict]:
        info, end = seen
        labels = [" ".join(f"{k} {v}" for k, v in name.items()) for name in names]
        check_finite(info.energy, labels, i * length, "energy")
        if np.isnan(info.temperature).any():
            raise UserError(
                "no start temperature: of the neighbours drawn in the burn-in none is allowed and "
                "has an energy; give --temperature, or a larger --burn_in"
            )
        last = {field: values[:, -1] for field, values in info._asdict().items()}
        last |= {"accepted": info.accepted.mean(1), "validation": end.chosen_score}
        last |= {"hamming": end.hamming, "drift": end.drift}
        at = {"step": (i + 1) * length}
        metrics = [
            {**name, **at, **{field: values[j] for field, values in last.items()}}
            for j, name in enumerate(names)
        ]
        shown = {
            "T": last["temperature"].mean(),
            "k": last["size"].mean(),
            "best": last["best_energy"].min(),
            "mean": last["energy"].mean(),
            "accepted": last["accepted"].mean(),
        }
        return metrics, shown

    begin_all = runs.batch(search.begin, axis)

    def begin() -> tuple[PyTree, Chain]:
        states = runs.join(begin_all(runs.split(chains, axis), sight))
        return chains, states if begin_groups is None else begin_groups(states)

    def shapes() -> tuple[PyTree, Chain]:
        states = jax.eval_shape(jax.vmap(search.begin, in_axes=(0, None)), chains, runs.own(sight))
        return chains, states if begin_groups is None else jax.eval_shape(begin_groups, states)

    def first_values(state: tuple[PyTree, Chain]) -> dict[str, float]:
        energy = state[1].state.energy
        return {"best": energy.min(), "mean": energy.mean()}

    progress = progress or progress_of(phase, len(names), steps)
    ends = range(length, steps + 1, length)
    return run_in_chunks(session, phase, begin, ends, step, report, progress, shapes, first_values)[
        1
    ]


def progress_of(phase: str, chains: int, steps: int) -> Progress:
    """The live line of a search with `chains` chains of `steps` steps, see `run_chains`."""
    return Progress(f"{phase}, {chains} chains", steps, FORMATS, "eval", per_step=chains)


def _of_groups(interaction: GroupInteraction, group: int) -> tuple[Callable, Callable]:
    """An interaction's two functions, over the stacked chains of all groups."""

    def cut(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, group, *leaf.shape[1:]), tree)

    def whole(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    @jax.jit
    def begin(chains: Chain) -> Chain:
        return whole(jax.lax.map(interaction.begin, cut(chains)))

    @jax.jit
    def interact(group_inputs: PyTree, chains: Chain, start: Array, sight: PyTree) -> Chain:
        def interact_group(pair: tuple[PyTree, Chain]) -> Chain:
            inputs, group_chains = pair
            return interaction.interact(inputs, group_chains, start, sight)

        return whole(jax.lax.map(interact_group, (group_inputs, cut(chains))))

    return begin, interact
