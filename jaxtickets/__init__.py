"""Lottery tickets and model compression in pure JAX."""
