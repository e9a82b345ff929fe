"""Searches over masks: spaces, moves, energies, acceptance rules, annealing, interacting chains.

`graphs` searches over nets instead: graphs that work with one weight for all connections.
"""
