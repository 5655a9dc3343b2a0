"""Deciding what to do next, without files, clocks or devices: budget, plan, planner, samplers."""
