"""Labels of units along the axes of values, and how they are tied, split and joined.

A label is an integer. A value has labels along each of its axes: a slice of it is removed if the
unit of its label is. An axis is a product of factors, outermost first, as a reshape leaves them:
after a flatten of `[h, w, c]`, the one axis has the factors h, w and c, and only c has units. So an
axis of attention's features can lose whole heads, the outer factor, or the same places of each
head, the inner one.

A label whose axis was split in two is composite: it is gone if one of its parts is gone. All labels
are joined at the end, in `joined`.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

FREE, FIXED = -1, 0
"""Labels of what is not a unit: FREE, along which a value can be cut as other values need it, such
as a constant or a broadcast; FIXED, what must stay, such as inputs, outputs, pixels and words."""

Axis = tuple[np.ndarray, ...]
"""The factors of an axis, outermost first: int`[size]`, the labels along each."""

Axes = dict[str, dict[int, np.ndarray]]
"""Leaf path -> axis, counted from the end -> the labels along it: int`[size]`; or int`[size, k]`
where each position belongs to k units, and is removed with any of them."""


class UntraceableError(ValueError):
    """An operation through which units cannot be traced."""


class Value(NamedTuple):
    """A value of a net's jaxpr, which may be a leaf.

    Attributes:
      axes: the labels along each axis.
      zero: for each axis, whether the slices of removed units are zero in the masked net. A sum
        over units is the same without them only then.
      whole: the unit to which all of the value belongs, after its axis was squeezed; FREE if none.
      path: the path of the leaf; '' for other values.
      const: the number that all elements equal, if they are known to.
    """

    axes: tuple[Axis, ...]
    zero: tuple[bool, ...]
    whole: int = FREE
    path: str = ""
    const: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(map(length, self.axes))

    def is_zero(self, axis: int) -> bool:
        """Whether removed slices along `axis` are zero; a number broadcasts."""
        return self.const == 0 or (bool(self.zero) and self.zero[axis])


class Claim(NamedTuple):
    """Units that an operation cannot do without.

    Attributes:
      place: the operation and its module.
      what: what it does with them, for messages.
      labels: the labels.
      rule: whether the operation has a rule.
    """

    place: str
    what: str
    labels: np.ndarray
    rule: bool


def length(axis: Axis) -> int:
    """The number of positions of an axis.

    >>> length((np.array([FIXED, FIXED]), np.array([1, 2, 3])))
    6
    """
    return math.prod(len(factor) for factor in axis)


def uniform(size: int, label: int) -> Axis:
    """An axis of one label.

    >>> [factor.tolist() for factor in uniform(3, FIXED)]
    [[0, 0, 0]]
    """
    return (np.full(size, label),)


def free(shape: Sequence[int], const: float | None = None) -> Value:
    """A constant of that shape.

    >>> value = free((2, 3), const=0.0)
    >>> value.shape, is_free(value.axes[0]), value.is_zero(0)
    ((2, 3), True, True)
    """
    return Value(
        tuple(uniform(n, FREE) for n in shape), (const == 0,) * len(shape), FREE, "", const
    )


def fixed(shape: Sequence[int]) -> Value:
    """A value of that shape without units, which must stay.

    >>> value = fixed((2, 3))
    >>> value.shape, is_free(value.axes[0]), has_units(value.axes[0])
    ((2, 3), False, False)
    """
    return Value(tuple(uniform(n, FIXED) for n in shape), (False,) * len(shape))


def is_free(axis: Axis) -> bool:
    """Whether no position has a label.

    >>> is_free(uniform(3, FREE)), is_free(uniform(3, FIXED))
    (True, False)
    """
    return all((factor == FREE).all() for factor in axis)


def has_units(axis: Axis) -> bool:
    """Whether a position belongs to a unit.

    >>> has_units((np.array([FREE, 7]),)), has_units(uniform(3, FIXED))
    (True, False)
    """
    return any((factor > FIXED).any() for factor in axis)


def _labels_of(axis: Axis) -> np.ndarray:
    """int`[n]`: the units along an axis."""
    labels = np.concatenate([*axis, np.empty(0, int)])
    return np.unique(labels[labels > FIXED])


class Seen(NamedTuple):
    """The results that a walk over a jaxpr accumulates.

    Attributes:
      numbers: gives new labels.
      ties: int arrays `[2, n]`, pairs of labels of the same unit.
      parts: composite label -> its parts, outermost first.
      composites: parts -> composite label.
      order: leaf path -> the first operation that reads the leaf, in the order of reading.
      depthwise: the paths of kernels that filter each channel separately; the shapes of a net with
        one channel do not show it.
      claims: the units that operations cannot do without.
      place: the current operation and its module, for messages.
    """

    numbers: Iterator[int]
    ties: list[np.ndarray]
    parts: dict[int, tuple[int, ...]]
    composites: dict[tuple[int, ...], int]
    order: dict[str, str]
    depthwise: set[str]
    claims: list[Claim]
    place: str = ""

    def new(self, count: int) -> np.ndarray:
        """int`[count]`: new labels."""
        return np.array(list(itertools.islice(self.numbers, count)), int)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties labels elementwise; free positions are not tied."""
        a, b = np.broadcast_arrays(a, b)
        chosen = (a != FREE) & (b != FREE) & (a != b)
        if chosen.any():
            self.ties.append(np.unique(np.stack([a[chosen], b[chosen]]), axis=1))

    def fix(self, axis: Axis) -> None:
        """The units along an axis must stay; this needs no message."""
        for factor in axis:
            self.tie(factor, np.array(FIXED))

    def claim(self, axis: Axis, what: str, rule: bool = True) -> None:
        """The units along an axis must stay, which is an error if they are those of a layer."""
        if has_units(axis):
            self.claims.append(Claim(self.place, what, _labels_of(axis), rule))

    def composite(self, parts: Sequence[int]) -> int:
        """The label of what is gone if one of the parts is gone."""
        units = tuple(dict.fromkeys(int(part) for part in parts if part > FIXED))
        if len(units) < 2:
            return units[0] if units else max(parts, default=FREE)
        if units not in self.composites:
            self.composites[units] = int(self.new(1)[0])
            self.parts[self.composites[units]] = units
        return self.composites[units]

    def split(self, labels: np.ndarray, outer: int) -> Axis:
        """A factor as two, of which the first has size `outer`."""
        inner = len(labels) // outer
        if outer == 1 or inner == 1:
            ends = np.full(1, FREE)
            return (labels, ends) if inner == 1 else (ends, labels)
        if (labels <= FIXED).all():
            label = int(labels.max())
            return (*uniform(outer, label), *uniform(inner, label))
        table = labels.reshape(outer, inner)
        if (table == table[:1]).all():
            return (*uniform(outer, FIXED), table[0])
        if (table == table[:, :1]).all():
            return (table[:, 0], *uniform(inner, FIXED))
        distinct = len(np.unique(labels)) == len(labels) and (labels > FIXED).all()
        known = [self.parts.get(int(label)) for label in labels]
        if distinct and not any(known):
            rows, columns = self.new(outer), self.new(inner)
            for row, over in zip(rows, table, strict=True):
                for column, label in zip(columns, over, strict=True):
                    self.parts[int(label)] = (int(row), int(column))
                    self.composites.setdefault((int(row), int(column)), int(label))
            return rows, columns
        found = self._split_parts(known, outer, inner)
        if found is None:  # no rectangle: all must stay
            self.claim((labels,), "splits in another way the")
            return (*uniform(outer, FIXED), *uniform(inner, FIXED))
        return found

    def _split_parts(
        self, known: Sequence[tuple[int, ...] | None], outer: int, inner: int
    ) -> Axis | None:
        """The factors of composite labels whose parts each vary along one of them; else None."""
        kinds = {len(parts) if parts else 0 for parts in known}
        if len(kinds) > 1 or 0 in kinds:
            return None
        rows: list[np.ndarray] = []
        columns: list[np.ndarray] = []
        for part in np.array(known).T.reshape(-1, outer, inner):
            if (part == part[:, :1]).all():
                rows.append(part[:, 0])
            elif (part == part[:1]).all():
                columns.append(part[0])
            else:
                found = self._split_coarse(part.reshape(-1), outer)
                if found is None:
                    return None
                rows.append(found[0])
                columns.append(found[1])
        return tuple(
            np.array([self.composite(parts) for parts in zip(*some, strict=True)])
            if some
            else np.full(size, FIXED)
            for some, size in ((rows, outer), (columns, inner))
        )

    def _split_coarse(self, part: np.ndarray, outer: int) -> Axis | None:
        """The factors of a part that runs over both, such as the groups of a finer norm."""
        inner = len(part) // outer
        units = part[np.sort(np.unique(part, return_index=True)[1])]
        times, count = len(part) // len(units), len(units)
        if np.array_equal(part, np.repeat(units, times)) and count % outer == 0:
            first, second = self.split(units, outer)
            return first, np.repeat(second, inner * outer // count)
        if np.array_equal(part, np.tile(units, times)) and count % inner == 0:
            first, second = self.split(units, count // inner)
            return np.tile(first, outer * inner // count), second
        deeper = [self.parts.get(int(label)) for label in part]
        return self._split_parts(deeper, outer, inner)

    def flat(self, axis: Axis) -> np.ndarray:
        """int`[size]`: one label for each position of an axis."""
        if len(axis) == 1:
            return axis[0]
        grids = np.meshgrid(*axis, indexing="ij")
        table = np.stack([grid.reshape(-1) for grid in grids], 1)
        if ((table > FIXED).sum(1) < 2).all():
            return table.max(1)
        return np.array([self.composite(row) for row in table])

    def meet(self, a: Axis, b: Axis) -> Axis:
        """The axis of two values that an operation combines position by position; ties labels."""
        if length(a) != length(b):
            raise UntraceableError(f"combines axes of {length(a)} and {length(b)} positions")
        if is_free(a) or is_free(b):
            return b if is_free(a) else a
        a, b = _without_ones(a), _without_ones(b)
        if [*map(len, a)] == [*map(len, b)]:
            return tuple(self._met(x, y) for x, y in zip(a, b, strict=True))
        plain = [_plain(axis) for axis in (a, b)]
        if plain[0] is not None and plain[1] is not None:
            self.tie(plain[0], plain[1])
            return a if len(a) > len(b) else b
        first, second = len(a[0]), len(b[0])
        if first == second:
            return (self._met(a[0], b[0]), *self.meet(a[1:], b[1:]))
        if 1 in (first, second):  # a unit on its own
            rest = self.meet(a[1:], b) if first == 1 else self.meet(a, b[1:])
            return (a[0] if first == 1 else b[0], *rest)
        if first % second == 0:
            return self.meet((*self.split(a[0], second), *a[1:]), b)
        if second % first == 0:
            return self.meet(a, (*self.split(b[0], first), *b[1:]))
        return (self._met(self.flat(a), self.flat(b)),)

    def _met(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.tie(a, b)
        return np.where(a == FREE, b, a)

    def regroup(self, value: Value, shape: Sequence[int]) -> Value:
        """The value after a reshape to `shape`.

        Raises:
          UntraceableError: the new axes do not divide the old ones.
        """
        whole, queue = value.whole, list[tuple[np.ndarray, bool]]()
        for axis, zero in zip(value.axes, value.zero, strict=True):
            for factor in axis:
                if len(factor) > 1 or factor[0] > FIXED:
                    queue.append((factor, zero or not (factor > FIXED).any()))
        axes, zeros = list[Axis](), list[bool]()
        for place in reversed(range(len(shape))):  # a single unit is most often the last axis
            mine, zero, left = list[np.ndarray](), True, shape[place]
            last = place == 0 or shape[place - 1] != 1
            while left > 1 or (queue and len(queue[-1][0]) == 1 and (last or not mine)):
                factor, flag = queue.pop()
                if left % len(factor):
                    if len(factor) % left:
                        raise UntraceableError("reshapes units to axes that don't divide them")
                    rest, factor = self.split(factor, len(factor) // left)
                    queue.append((rest, flag))
                mine.insert(0, factor)
                zero = zero and flag
                left //= len(factor)
            axes.insert(0, tuple(mine) or uniform(shape[place], FREE))
            zeros.insert(0, zero)
        for factor, _ in queue:
            whole = self.both(whole, int(factor[0]))
        return Value(tuple(axes), tuple(zeros), whole, "", value.const)

    def both(self, one: int, other: int) -> int:
        """The label of a value that belongs to two units."""
        self.tie(np.array(one), np.array(other))
        return other if one == FREE else one


def _without_ones(axis: Axis) -> Axis:
    """The factors that have several positions or a unit."""
    return tuple(one for one in axis if len(one) > 1 or one[0] > FIXED) or (axis[:1])


def _plain(axis: Axis) -> np.ndarray | None:
    """int`[size]`: the labels of positions, if only one factor has units, and none is free."""
    if len(axis) == 1:
        return axis[0]
    units = [(factor > FIXED).any() for factor in axis]
    fixed_others = [
        (factor == FIXED).all() for factor, unit in zip(axis, units, strict=True) if not unit
    ]
    if sum(units) > 1 or not all(fixed_others):
        return None
    grids = np.meshgrid(*axis, indexing="ij")
    return np.stack(grids).max(0).reshape(-1)


def joined(seen: Seen, count: int) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
    """Label -> the lowest label tied to it; and those of composites -> their atoms.

    Args:
      seen: the results of a walk.
      count: the number of labels.

    >>> seen = Seen(itertools.count(4), [], {}, {}, {}, set(), [])
    >>> seen.tie(np.array([1]), np.array([3]))
    >>> joined(seen, 4)[0].tolist()
    [0, 1, 2, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ties = [np.empty((2, 0), int), *seen.ties]
    while True:
        first, second = np.concatenate(ties, 1)
        pairs = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
        numbers = connected_components(pairs, directed=False)[1]
        lowest = np.unique(numbers, return_index=True)[1][numbers]
        more = _congruences(seen.parts, lowest)
        if not more:
            break
        ties.append(np.array(more).T)
    parts = {int(lowest[label]): parts for label, parts in seen.parts.items()}
    atoms: dict[int, tuple[int, ...]] = {}

    def expanded(label: int, depth: int = 0) -> tuple[int, ...]:
        label = int(lowest[label])
        if label == FIXED or label not in parts:
            return (label,)
        if depth > 16:
            raise UntraceableError("a unit is a part of itself")
        if label not in atoms:
            atoms[label] = tuple(
                dict.fromkeys(a for part in parts[label] for a in expanded(part, depth + 1))
            )
        return atoms[label]

    for label in parts:
        expanded(label)
    return lowest, atoms


def _congruences(parts: dict[int, tuple[int, ...]], lowest: np.ndarray) -> list[tuple[int, int]]:
    """The ties of parts that follow from ties of composites."""
    ties, first = [], dict[int, tuple[int, ...]]()
    for label, mine in parts.items():
        joint = int(lowest[label])
        others = first.setdefault(joint, mine)
        if joint == FIXED or len(others) != len(mine):
            others = (FIXED,) * len(mine)
        ties += [(a, b) for a, b in zip(mine, others, strict=True) if lowest[a] != lowest[b]]
        if len(first[joint]) != len(mine):
            ties += [(a, FIXED) for a in first[joint] if lowest[a] != lowest[FIXED]]
    return ties
