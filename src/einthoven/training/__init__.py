"""Training: the only loop, its optimiser, its checkpoints and its run folder."""
