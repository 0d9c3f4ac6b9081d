"""The LISA network, its checkpoints, prompts and preprocessing."""
