"""Whole procedures on tickets, as pure functions."""
