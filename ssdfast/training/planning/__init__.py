"""Plans the memory of a training step, without weights and without a GPU."""
