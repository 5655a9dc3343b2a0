"""Weights that networks start from: published ones, remapped to a shape, or inherited from earlier trials."""
