"""Advances a batch of chains from records to records: resumable, with a live line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import annealed_start
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.chunked_run import check_finite, run_in_chunks
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed
from experiments.harness.session import Session
from jaxtickets import runs
from jaxtickets.criteria import Evidence
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes.annealed_search import Meeting, Search
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain, mask_at
from jaxtickets.runs import Blocks, Shared
from jaxtickets.search.annealing import Info
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.types import Array, Key, PyTree


class ChainName(NamedTuple):
    """One chain: its density, its seed, and its number within the seed."""

    density: float
    seed: Seed
    chain: int


class FoundTicket(NamedTuple):
    """The best of the chains of a density and a seed.

    Attributes:
      density, seed: whose.
      ticket: bool`[n]`, the bits that validation chose.
      ticket_last: bool`[n]`, the bits that the chain ended with.
      said: `search_loss` and `search_validation_loss`, the chain's lowest energy, and the chosen
        bits' on the validation data.
    """

    density: float
    seed: Seed
    ticket: Array
    ticket_last: Array
    said: dict[str, float]


FORMATS = {"T": ".1e", "best": ".4f", "mean": ".4f", "accepted": ".0%", "k": ".4g"}


def first_rows(
    label: str,
    settings: AnnealingSettings,
    where: SearchDomain,
    plans: Sequence[ChainName],
    about: Callable[[Seed], Evidence],
) -> tuple[ChainInputs, int]:
    """What all chains are given, stacked, and the largest swap that any of them can make.

    Args:
      label: what the search is called, unlike any other of the run.
      settings: the search.
      where: its ground.
      plans: the chains.
      about: what criteria look at, of a seed; asked for where one is.
    """
    if where.fields is not None:
        return runs.stack([_field_row(label, settings, where, about, plan) for plan in plans]), 0
    bits = [
        annealed_start.first_bits(
            settings,
            first_key(label, plan),
            where.space,
            plan.density,
            about(plan.seed) if settings.start else None,
        )
        for plan in plans
    ]
    most = annealed_start.largest_swap(settings, where.space, jnp.stack(bits))
    made = [
        ChainInputs(
            key=walk_key(label, plan),
            energy_key=energy_key(label, plan),
            params=plan.seed.params,
            stats=plan.seed.stats,
            start=b,
            ticks=annealed_start.step_plans(settings, int(b.sum()), most),
        )
        for b, plan in zip(bits, plans, strict=True)
    ]
    return runs.stack(made), most


def first_key(label: str, plan: ChainName) -> Key:
    """What a chain's first point is drawn with."""
    return stream(plan.seed.number, "first_mask", label, plan.density, plan.chain)


def walk_key(label: str, plan: ChainName, phase: int = 0) -> Key:
    """A chain's key, in a search that has phases one of each."""
    return stream(plan.seed.number, "walk", label, plan.density, plan.chain, phase)


def energy_key(label: str, plan: ChainName) -> Key:
    """The key of the energy, one for all chains of a seed: they are compared by it."""
    return stream(plan.seed.number, "energy", label, plan.density)


def _field_row(
    label: str,
    settings: AnnealingSettings,
    where: SearchDomain,
    about: Callable[[Seed], Evidence],
    plan: ChainName,
) -> ChainInputs:
    one, first = plan.seed, first_key(label, plan)
    features, start = annealed_start.first_field(settings, first, where, about(one))
    return ChainInputs(
        key=walk_key(label, plan),
        energy_key=energy_key(label, plan),
        params=one.params,
        stats=one.stats,
        start=start,
        ticks=annealed_start.step_plans(settings, 0, 0),
        features=features,
        keep=annealed_start.field_keep(settings, where, plan.density),
    )


def best(
    settings: AnnealingSettings,
    where: SearchDomain,
    plans: Sequence[ChainName],
    given: ChainInputs,
    ends: Chain,
) -> list[FoundTicket]:
    """For each density and seed, the chain whose mask scores lowest on the validation data."""

    @jax.jit
    def bits(row: ChainInputs, point: PyTree) -> Array:
        return where.space.bits(mask_at(where, settings.floor, row, point))

    found = []
    for i in winners(plans, ends):
        row, plan = runs.take(given, i), plans[i]
        last = ends.state.walk.bits if where.fields is None else ends.state.walk
        ticket, at_end = (bits(row, runs.take(points, i)) for points in (ends.chosen, last))
        found.append(FoundTicket(plan.density, plan.seed, ticket, at_end, lowest(ends, i)))
    return found


def lowest(ends: Chain, i: int) -> dict[str, float]:
    """What a summary says of chain i: its lowest energy, and the chosen mask's on validation."""
    return {
        "search_loss": round(float(ends.state.best_energy[i]), 6),
        "search_validation_loss": round(float(ends.chosen_score[i]), 6),
    }


def winners(plans: Sequence[ChainName], ends: Chain) -> list[int]:
    """For each density and seed, which chain's mask scores lowest on the validation data."""
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
    """Runs all chains to their end; returns their last states, stacked.

    Metrics rows hold, for each chain and chunk, `step`, `energy`, `best_energy`, `temperature`,
    and `size` of the chunk's last step, `accepted` as a mean over the chunk, and of its end
    `hamming`, the distance from the first mask, `drift`, how far sums kept by differences were off,
    and `validation`, the score of the mask chosen so far.

    Args:
      session, phase: see `run_in_chunks`.
      steps: of each chain.
      length: steps of a chunk.
      search: what a chain does.
      chains: what each chain is given, with a leading axis of chains.
      names: what metrics rows say of each chain, such as density, seed and chain.
      sight: the data, on each device.
      group: how many chains meet, where they do: the first so many, the next, and so on.
      progress: of `progress_of`, where it has been announced already.
    """

    axis = session.axis

    def advance_one(
        pair: tuple[PyTree, Chain], start: Array, sight: PyTree
    ) -> tuple[tuple[PyTree, Chain], tuple[Info, ChunkInfo]]:
        row, chain = pair
        chain, info, end = search.chunk(row, chain, start, sight)
        return (row, chain), (info, end)

    advance = runs.batch(advance_one, axis)

    meeting = search.meeting
    begin_groups, meet_groups = _of_groups(meeting, group) if meeting else (None, None)

    firsts = runs.take(chains, np.arange(0, len(names), group)) if meeting else None
    seen_by_all = runs.own(sight) if meeting else None

    def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
        if meet_groups is not None and i:
            rows, apart = runs.unzip(blocks)
            met = meet_groups(firsts, runs.join(apart), np.int32(i * length), seen_by_all)
            blocks = runs.zip_(rows, runs.split(met, axis))
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
        made = [
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
        return made, shown

    begin_all = runs.batch(search.begin, axis)

    def begin() -> tuple[PyTree, Chain]:
        made = runs.join(begin_all(runs.split(chains, axis), sight))
        return chains, made if begin_groups is None else begin_groups(made)

    def shapes() -> tuple[PyTree, Chain]:
        made = jax.eval_shape(jax.vmap(search.begin, in_axes=(0, None)), chains, runs.own(sight))
        return chains, made if begin_groups is None else jax.eval_shape(begin_groups, made)

    def first_values(state: tuple[PyTree, Chain]) -> dict[str, float]:
        energy = state[1].state.energy
        return {"best": energy.min(), "mean": energy.mean()}

    progress = progress or progress_of(phase, len(names), steps)
    ends = range(length, steps + 1, length)
    return run_in_chunks(session, phase, begin, ends, step, report, progress, shapes, first_values)[
        1
    ]


def progress_of(phase: str, chains: int, steps: int) -> Progress:
    """The live line of a search of so many chains, see `run_chains`."""
    return Progress(f"{phase}, {chains} chains", steps, FORMATS, "eval", per_step=chains)


def _of_groups(meeting: Meeting, group: int) -> tuple[Callable, Callable]:
    """A meeting's two functions, of the chains of all groups, one group after another."""

    def cut(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, group, *leaf.shape[1:]), tree)

    def whole(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)

    @jax.jit
    def begin(chains: Chain) -> Chain:
        return whole(jax.lax.map(meeting.begin, cut(chains)))

    @jax.jit
    def meet(firsts: PyTree, chains: Chain, start: Array, sight: PyTree) -> Chain:
        def one(pair: tuple[PyTree, Chain]) -> Chain:
            row, group_of = pair
            return meeting.meet(row, group_of, start, sight)

        return whole(jax.lax.map(one, (firsts, cut(chains))))

    return begin, meet
