"""State dicts: every net computes in PyTorch what it computes here; what can't go there says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import CASES, case_net, logits, random_ticket
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.io import pytorch
from jaxtickets.types import Ticket


def torch_logits(net, shape, state, images, prune_layers=False):
    torch = pytest.importorskip("torch")
    import torch_nets

    module = torch_nets.make(net, shape)
    if prune_layers:
        for name in state:
            layer, _, leaf = name.rpartition(".")
            if leaf.endswith("_orig"):
                torch.nn.utils.prune.identity(
                    module.get_submodule(layer), leaf.removesuffix("_orig")
                )
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    with torch.no_grad():
        return module, module(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
