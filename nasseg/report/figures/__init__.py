"""Drawings: of networks, of trade-offs, of predictions."""
