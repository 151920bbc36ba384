"""What a training step would take, found out without weights and without a GPU."""
