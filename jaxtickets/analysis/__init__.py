"""Analysis: comparisons of masks, of weights, and of the path between two sets of weights."""
