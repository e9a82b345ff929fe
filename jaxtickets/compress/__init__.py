"""Compression: pruned nets become smaller nets, masked layers sparse ones, and `surgeon`s prune."""
