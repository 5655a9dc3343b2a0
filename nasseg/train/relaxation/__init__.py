"""Training a relaxation of a search space."""
