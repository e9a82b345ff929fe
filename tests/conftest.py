"""What all tests share: several CPU devices, strict shapes, a tiny net."""

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
