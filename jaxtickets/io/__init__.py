"""The host's side of an experiment: errors, records, checkpoints, tickets, progress, set-up."""
