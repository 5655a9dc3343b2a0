"""Training one network in several processes: each computes its part of every batch, and all take the same step."""
