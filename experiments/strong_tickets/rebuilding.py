"""Measures errors of single weights, and rebuilds and checks whole nets. Resumable."""

import itertools
import math
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.harness import cached_trainings, memory
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed
from experiments.harness.session import Session
from experiments.strong_tickets.settings import Sizes
from jaxtickets import masks, nets, runs
from jaxtickets.keys import stream
from jaxtickets.recipes import strong_tickets, subset_sums
from jaxtickets.recipes.strong_tickets import CONSTRUCTIONS
from jaxtickets.types import Array, Key, Model, Params, Ticket

LEADING = ("method", "coefficients", "seed", "test_accuracy", "same_answers", "largest_error")
"""The first columns of a summary."""
TARGET = "target"
"""The method of the rows of trained nets."""
IMAGES = 500
"""Images that a wide net classifies at a time."""
COPIES = 3
"""The copies of a random net that are held at least: itself, masked, and its mask in bytes."""


def check_memory(problem: Problem, sizes: Sizes) -> None:
    """Refuses random nets that can't fit into memory, in one line."""
    for name, numbers in sizes.items():
        for n in numbers:
            weights = random_weights(problem, n)
            asked = f"--constructions={name} with {n} coefficients a weight"
            memory.check_memory(asked, 1, COPIES * 4 * weights, "random nets")


def random_weights(problem: Problem, n: int) -> int:
    """The number of random weights of the net in which the problem's net is rebuilt."""
    net = strong_tickets.random_net(problem.net, problem.image_shape, n)
    inputs = math.prod(problem.image_shape)
    widths = [inputs, *net.widths, net.classes]
    return sum(a * b for a, b in itertools.pairwise(widths))


def kernels(problem: Problem, params: Params) -> list[Array]:
    """The kernels of a net in forward order."""
    names = strong_tickets.layers(problem.net, problem.image_shape)
    return [params[name]["kernel"] for name in names]


# --- the errors of single weights -----------------------------------------------------------------


def error_rows(session: Session, sizes: Sizes, dense: Dense, sample: int) -> list[Row]:
    """Errors of a sample of each net's weights, each made of coefficients of its own."""
    targets = []
    for i, one in enumerate(session.seeds):
        leaves = kernels(session.problem, runs.take(dense.params, i))
        weights = np.concatenate([np.ravel(leaf) for leaf in leaves])
        draw = np.random.default_rng(one.number)
        targets.append(draw.choice(weights, min(sample, len(weights)), replace=False))
    found = []
    for name, n in [(name, n) for name, numbers in sizes.items() for n in numbers]:
        phase = f"errors-{name}-{n}"
        rows = cached_trainings.known(session.folder, phase)
        if not rows:
            rows = _errors(session, name, n, np.stack(targets))
            cached_trainings.keep(session.folder, phase, rows)
        found += rows
    return found


def _errors(session: Session, name: str, n: int, targets: np.ndarray) -> list[Row]:
    """A row a seed; `targets` are `[seeds, sample]`."""
    products = np.stack(
        [
            _products(stream(s.number, "coefficients", name, n), name, n, targets.shape[1])
            for s in session.seeds
        ],
        axis=1,
    )  # [n, seeds, sample]
    kept = subset_sums.search(
        CONSTRUCTIONS[name].rule, targets.ravel(), products.reshape(n, -1), session.axis
    )
    left_out = ~np.asarray(kept).reshape(products.shape)
    errors = np.abs(np.where(left_out, 0, products.astype(np.float64)).sum(0) - targets)
    return [
        {
            **{"method": name, "coefficients": n, "seed": one.number, "weights": len(mine)},
            **{"mean_error": float(mine.mean()), "largest_error": float(mine.max())},
            "median_error": float(np.median(mine)),
        }
        for one, mine in zip(session.seeds, errors, strict=True)
    ]


def _products(key: Key, name: str, n: int, weights: int) -> np.ndarray:
    """Random coefficients of single weights, float`[n, weights]`."""
    wires_key, reads_key = jax.random.split(key)
    wires = CONSTRUCTIONS[name].draw_wires(wires_key, (n, weights), n)
    return np.asarray(jnp.abs(wires) * CONSTRUCTIONS[name].draw_reads(reads_key, (n, weights), n))


# --- whole nets -----------------------------------------------------------------------------------


def rebuilt_rows(session: Session, sizes: Sizes, dense: Dense, epsilon: float) -> list[Row]:
    """A row for each trained net, and one for each of its copies made of random weights.

    `within` is the share of a copy's weights with an error of at most `epsilon`, `median_error`,
    `mean_error` and `largest_error` are over all of its weights.
    """
    problem, found = session.problem, list[Row]()
    for i, one in enumerate(session.seeds):
        params = runs.take(dense.params, i)
        answers = predictions(problem.recipe.model, problem, params, session.data.test.images)
        right = answers == np.asarray(session.data.test.labels)
        weights = masks.size(params, masks.prunable(params))
        name = {"method": TARGET, "coefficients": None, "seed": one.number}
        width = "-".join(str(leaf.shape[1]) for leaf in kernels(problem, params)[:-1])
        facts = {"random_weights": 0, "kept_weights": weights, "widths": width}
        learnt = {"seconds": dense.summary[i]["seconds"], "same_answers": 1.0}
        found.append({**name, "test_accuracy": float(right.mean()), **learnt, **facts})
        for construction, numbers in sizes.items():
            for n in numbers:
                phase = f"{construction}-{n}-seed{one.number}"
                rows = cached_trainings.known(session.folder, phase)
                if not rows:
                    rows = [_rebuilt(session, construction, n, one, params, answers, epsilon)]
                    cached_trainings.keep(session.folder, phase, rows)
                found += rows
    order = [TARGET, *sizes]
    return sorted(
        found, key=lambda r: (order.index(r["method"]), r["coefficients"] or 0, r["seed"])
    )


def _rebuilt(
    session: Session,
    name: str,
    n: int,
    one: Seed,
    params: Params,
    answers: np.ndarray,
    epsilon: float,
) -> Row:
    """Rebuilds a net, checks every weight of it, and lets it answer the test images."""
    problem = session.problem
    started, used = time.monotonic(), time.process_time()
    target = kernels(problem, params)
    key: Key = stream(one.number, "random_net", name, n)
    ticket = jax.block_until_ready(
        strong_tickets.rebuild(key, target, n, CONSTRUCTIONS[name], session.axis)
    )
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - used
    errors = weight_errors(ticket, target)
    net = strong_tickets.random_net(problem.net, problem.image_shape, n)
    model = nets.functional(net, problem.image_shape)
    masked = masks.apply(ticket.mask, ticket.params)
    mine = predictions(model, problem, masked, session.data.test.images)
    random = sum(leaf.size for leaf in jax.tree.leaves(ticket.params))
    kept = sum(int(jnp.sum(leaf)) for leaf in jax.tree.leaves(ticket.mask))
    row = {
        **{"method": name, "coefficients": n, "seed": one.number},
        "test_accuracy": float((mine == np.asarray(session.data.test.labels)).mean()),
        "same_answers": float((mine == answers).mean()),
        **{"largest_error": float(errors.max()), "mean_error": float(errors.mean())},
        **{"median_error": float(np.median(errors)), "within": float((errors <= epsilon).mean())},
        **{"random_weights": random, "kept_weights": kept, "density": kept / random},
        "widths": "-".join(map(str, net.widths)),
        **{"seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)},
    }
    print(
        f"{name}, {n} coefficients a weight, seed {one.number}: largest error "
        f"{row['largest_error']:.2g}, test accuracy {row['test_accuracy']:.2%}, {seconds:.0f} s",
        flush=True,
    )
    return row


def weight_errors(ticket: Ticket, target: Sequence[Array]) -> np.ndarray:
    """What each weight of a rebuilt net is off by: for inputs of each sign, in the first layer."""
    found = []
    effective = strong_tickets.effective_weights(ticket.params, ticket.mask)
    for i, (weights, (positive, negative)) in enumerate(zip(target, effective, strict=True)):
        found.append(np.abs(positive - np.asarray(weights, np.float64)).ravel())
        if i == 0:
            found.append(np.abs(negative - np.asarray(weights, np.float64)).ravel())
    return np.concatenate(found)


def predictions(model: Model, problem: Problem, params: Params, images: Array) -> np.ndarray:
    """The net's classes of images, int`[n]`."""

    def answer(params: Params, images: Array) -> jax.Array:
        def some(part: Array) -> jax.Array:
            logits, _ = model.apply(params, {}, problem.recipe.prepare(part[None]))
            return jnp.argmax(logits[0])

        return lax.map(some, images, batch_size=IMAGES)

    return np.asarray(jax.jit(answer)(params, images))
