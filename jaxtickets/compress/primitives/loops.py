"""Loops and branches, whose bodies are traced and cut in turn."""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax
from jax.extend.core import JaxprEqn

from jaxtickets.compress.primitives.base import (
    Body,
    Primitive,
    Walk,
    fitted,
    tied,
)
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Seen,
    Value,
    uniform,
)
from jaxtickets.nets.element_moves import opened, scan_counts
from jaxtickets.types import Array


def _first_row(value: Value, seen: Seen) -> Value:
    """What a step of a scan reads of an array."""
    seen.fix(value.axes[0])
    return value._replace(axes=value.axes[1:], zero=value.zero[1:])


def _carried(
    step: Callable[[list[Value]], list[Value]], carry: list[Value], seen: Seen
) -> tuple[list[Value], list[Value]]:
    """The carry that no step changes, but for ties; and the outputs of a step from it."""
    while True:
        outputs = step(carry)
        after = [tied((a, b), seen) for a, b in zip(carry, outputs[: len(carry)], strict=True)]
        if [*map(_pattern, after)] == [*map(_pattern, carry)]:
            return carry, outputs
        carry = after


def _pattern(value: Value) -> tuple[Any, ...]:
    """What changes from step to step: where a value has labels, and what is zero."""
    where = tuple(tuple((factor != FREE).tobytes() for factor in axis) for axis in value.axes)
    return where, value.zero, value.const


def _scan_carry(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> tuple[list[Value], list[Value], list[Value]]:
    """The values of a scan's carry and rows, and of the outputs of a step."""
    consts, carried = scan_counts(eqn)
    fixed_inputs, start = list(inputs[:consts]), list(inputs[consts : consts + carried])
    rows = [_first_row(value, seen) for value in inputs[consts + carried :]]
    inner = opened(eqn.params["jaxpr"])

    def step(carry: list[Value]) -> list[Value]:
        plain = [value._replace(path="") for value in carry]
        return walk(inner, [*fixed_inputs, *plain, *rows], seen, module)

    carry, outputs = _carried(step, start, seen)
    return [value._replace(path="") for value in carry], rows, outputs


def _scan(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    carry, _, outputs = _scan_carry(eqn, inputs, seen, walk, module)
    stacked = [
        Value((uniform(eqn.params["length"], FIXED), *value.axes), (False, *value.zero))
        for value in outputs[len(carry) :]
    ]
    return [*carry, *stacked]


def _refit(
    arrays: Sequence[Array], values: Sequence[Value], wants: Sequence[Value], body: Body
) -> list[Array]:
    """Each array with the positions of another value that is tied to its own."""
    return [
        fitted(array, [body.keep(a) for a in value.axes], [body.keep(a) for a in want.axes])
        for array, value, want in zip(arrays, values, wants, strict=True)
    ]


def _cut_scan(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    consts, carried = scan_counts(eqn)
    carry, rows, _ = _scan_carry(eqn, inputs, body.seen, body.walk, body.module)
    start = _refit(
        arrays[consts : consts + carried], inputs[consts : consts + carried], carry, body
    )

    def step(carried_arrays: list[Array], row_arrays: list[Array]) -> tuple[list[Array], Any]:
        values, found = body.run(
            eqn.params["jaxpr"],
            [*inputs[:consts], *carry, *rows],
            [*arrays[:consts], *carried_arrays, *row_arrays],
        )
        after = _refit(found[:carried], values[:carried], carry, body)
        return after, found[carried:]

    last, stacked = lax.scan(
        step,
        start,
        list(arrays[consts + carried :]),
        length=eqn.params["length"],
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*last, *stacked]


def _while_parts(
    eqn: JaxprEqn, inputs: Sequence[Value]
) -> tuple[list[Value], list[Value], list[Value]]:
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    return (
        list(inputs[:first]),
        list(inputs[first : first + second]),
        list(inputs[first + second :]),
    )


def _while(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    condition_consts, consts, start = _while_parts(eqn, inputs)

    def step(carry: list[Value]) -> list[Value]:
        return walk(opened(eqn.params["body_jaxpr"]), [*consts, *carry], seen, module)

    carry, _ = _carried(step, start, seen)
    walk(opened(eqn.params["cond_jaxpr"]), [*condition_consts, *carry], seen, module)
    return carry


def _cut_while(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    condition_consts, consts, start = _while_parts(eqn, inputs)
    carry = list(outputs)

    def going(state: list[Array]) -> Array:
        _, (found,) = body.run(
            eqn.params["cond_jaxpr"], [*condition_consts, *carry], [*arrays[:first], *state]
        )
        return found

    def step(state: list[Array]) -> list[Array]:
        values, found = body.run(
            eqn.params["body_jaxpr"],
            [*consts, *carry],
            [*arrays[first : first + second], *state],
        )
        return _refit(found, values, carry, body)

    begin = _refit(arrays[first + second :], start, carry, body)
    return lax.while_loop(going, step, begin)


def _cond(
    eqn: JaxprEqn, inputs: Sequence[Value], seen: Seen, walk: Walk, module: str
) -> list[Value]:
    ends = [walk(opened(one), inputs[1:], seen, module) for one in eqn.params["branches"]]
    return [tied(values, seen) for values in zip(*ends, strict=True)]


def _cut_cond(
    eqn: JaxprEqn,
    arrays: Sequence[Array],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    body: Body,
) -> list[Array]:
    def branch(closed: Any) -> Callable[..., list[Array]]:
        def run(*some: Array) -> list[Array]:
            values, found = body.run(closed, inputs[1:], some)
            return _refit(found, values, outputs, body)

        return run

    return lax.switch(arrays[0], [branch(one) for one in eqn.params["branches"]], *arrays[1:])


RULES: dict[str, Primitive] = {
    "cond": Primitive(_cond, _cut_cond),
    "scan": Primitive(_scan, _cut_scan),
    "while": Primitive(_while, _cut_while),
}  # fmt: skip
