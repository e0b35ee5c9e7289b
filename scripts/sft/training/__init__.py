"""One run: trainer, checkpoints, resume, metrics."""
