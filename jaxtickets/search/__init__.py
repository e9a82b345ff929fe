"""Searches over masks: spaces, moves, energies, acceptance rules, annealing, interacting chains."""
