"""The planner for Java."""
