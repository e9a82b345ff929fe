"""Nets: flax modules by name, any net as pure functions, and how they are wired."""

from jaxtickets.nets.functional import as_model, example_inputs, functional, init_shapes
from jaxtickets.nets.functional_nnx import functional_nnx
from jaxtickets.nets.functional_plain import functional_plain
from jaxtickets.nets.ghost_batch_norm import ghost_batch_norm
from jaxtickets.nets.inits import INITIALIZERS, signed_constant
from jaxtickets.nets.input_check import check_fits
from jaxtickets.nets.operation_counts import multiply_adds, positions
from jaxtickets.nets.registry import (
    NETS,
    from_json,
    image_shape,
    make,
    name_of,
    names,
    output_layer,
    to_json,
)
from jaxtickets.nets.wiring import wiring

__all__ = [
    "INITIALIZERS",
    "NETS",
    "as_model",
    "check_fits",
    "example_inputs",
    "from_json",
    "functional",
    "functional_nnx",
    "functional_plain",
    "ghost_batch_norm",
    "image_shape",
    "init_shapes",
    "make",
    "multiply_adds",
    "name_of",
    "names",
    "output_layer",
    "positions",
    "signed_constant",
    "to_json",
    "wiring",
]
