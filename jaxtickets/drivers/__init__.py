"""Host loops that drive batches of runs: from settings to trained, searched, compared nets."""
