"""The work of a worker: training and pricing candidates, and the runners that carry jobs to it."""
