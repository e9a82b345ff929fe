"""Dynamic sparse training: the mask changes while the weights train. One file for each method."""
