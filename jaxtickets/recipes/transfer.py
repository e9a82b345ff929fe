"""Tickets on another data set, or on another initialisation: what of them is carried over."""

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Mask, Params, Prunable, Ticket


def new_head(ticket: Ticket, head: Params, output: str) -> Ticket:
    """The ticket with another output layer, which is dense.

    Morcos et al., "One ticket to win them all", 2019, section 3.3: mask and rewound weights are
    carried over, and the output layer is initialised anew. They keep its mask if the number of
    classes is the same; here it is always dense.

    Args:
      ticket: a ticket whose parameters are a dict of layers; its statistics hold none of `output`.
      head: parameters of the net with the new number of classes, of which `output` is taken.
      output: the name of the output layer.

    Raises:
      ValueError: there is no such layer.

    >>> params = {"fc1": {"kernel": np.ones((2, 2))}, "out": {"kernel": np.ones((2, 10))}}
    >>> ticket = Ticket(params, {}, jax.tree.map(lambda leaf: leaf < 0, params), 0)
    >>> moved = new_head(ticket, {"out": {"kernel": np.ones((2, 3))}}, "out")
    >>> moved.params["out"]["kernel"].shape, bool(moved.mask["out"]["kernel"].all())
    ((2, 3), True)
    """
    if output not in ticket.params or output not in head:
        raise ValueError(f"no output layer '{output}' among {', '.join(ticket.params)}")
    layer = head[output]
    params = {**ticket.params, output: layer}
    return ticket._replace(params=params, mask={**ticket.mask, output: masks.ones(layer)})


def signed(params: Params, trained: Params, mask: Mask, prunable: Prunable) -> Params:
    """`|w| · sign(w_trained)` of the kept weights: a signed mask on an initialisation.

    A kept weight whose trained value is 0 keeps its own sign, as do pruned ones. Oh et al., "Find a
    winning sign: sign is all we need to win the lottery", 2025, train any initialisation from the
    signs and the mask of a trained ticket. Their interpolation of norm parameters is left out.

    Args:
      params: an initialisation.
      trained: the ticket's trained weights, like `params`.
      mask: the ticket's mask, like `params`.
      prunable: the leaves that get signs.

    >>> fresh, trained = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[-5.0, -6.0]])}
    >>> signed(fresh, trained, {"w": np.array([[True, False]])}, ("w",))["w"].tolist()
    [[-1.0, 2.0]]
    """

    def leaf(own: Array, learnt: Array, kept: Array) -> jax.Array:
        known = kept & (jnp.sign(learnt) != 0)
        return jnp.where(known, jnp.abs(own) * jnp.sign(learnt), own)

    trees = (masks.pick(tree, prunable) for tree in (params, trained, mask))
    return masks.put(params, prunable, [leaf(*three) for three in zip(*trees, strict=True)])
