"""Adapters that carry a planner's jobs to workers."""
