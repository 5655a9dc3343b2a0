"""What lets a training run ahead of the losses that are read: steps that are undone, or replayed."""
