"""Analysis: comparisons of masks, of weights and of what lies between them."""
