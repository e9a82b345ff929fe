"""Dynamic sparse training: the mask moves while the weights train. A method a file."""
