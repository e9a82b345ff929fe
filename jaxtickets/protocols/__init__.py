"""Protocols: whole recipes that make tickets."""
