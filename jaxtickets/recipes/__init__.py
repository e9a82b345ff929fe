"""Whole pruning procedures on tickets, as pure functions."""
