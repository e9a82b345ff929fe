"""What the host keeps of a run: flags, records, checkpoints, tickets, errors, progress, set-up."""
