"""Random: the baseline of every criterion."""

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Key, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """Independent uniform scores; the key is consumed.

    >>> params = {"kernel": np.ones((2, 3)), "bias": np.ones(3)}
    >>> scores = score(jax.random.key(0), Evidence(params, params, {}, None, None, None))
    >>> {path: leaf.shape for path, leaf in scores.items()}
    {'bias': (3,), 'kernel': (2, 3)}
    """
    return masks.random_scores(key, evidence.params, masks.paths(evidence.params))
