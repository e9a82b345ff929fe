"""Searches over masks: state spaces, proposals, energies, acceptance rules, annealing."""
