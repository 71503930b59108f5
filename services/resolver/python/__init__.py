"""The planner for Python."""
