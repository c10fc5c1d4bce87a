"""Objectives: what the student minimises. One file holds one objective."""
