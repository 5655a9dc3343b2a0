"""What a worker does: training candidates, pricing them, and the runners that carry jobs to it."""
