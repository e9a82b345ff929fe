"""Trees, tickets and checkpoints on disk; user errors; several processes."""
