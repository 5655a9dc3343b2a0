"""What is shipped: networks as files for other runtimes, checked against PyTorch, and used from Python."""
