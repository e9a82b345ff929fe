"""Trees, tickets and checkpoints on disk; portable forms; user errors; several processes."""
