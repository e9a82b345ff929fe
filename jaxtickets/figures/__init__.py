"""Figures, drawn from a run's records alone."""
