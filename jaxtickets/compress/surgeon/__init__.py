"""Second-order pruning: weights are removed, and the others move to make up for it.

A surgeon is a function `study(evidence, prunable, ...) -> Study`; `prune(study, keep)` then gives
the ticket of any density. A new surgeon is a file with its study and a line in `SURGEONS`.
"""

from collections.abc import Callable
from functools import partial

from jaxtickets.compress.surgeon import exact_obs, obs, woodfisher
from jaxtickets.compress.surgeon.exact_obs import prune_to_pattern
from jaxtickets.compress.surgeon.quadratic import Removal, Study, prune, rebuilt, select

SURGEONS: dict[str, Callable[..., Study]] = {
    "obs": obs.study,
    "exact_obs": exact_obs.study,
    "layer_obs": partial(exact_obs.study, again=False),
    "woodfisher": woodfisher.study,
    "exact_woodfisher": partial(woodfisher.study, again=True),
}
"""Name -> study."""

__all__ = [
    "SURGEONS",
    "Removal",
    "Study",
    "exact_obs",
    "obs",
    "prune",
    "prune_to_pattern",
    "rebuilt",
    "select",
    "woodfisher",
]
