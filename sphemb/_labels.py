"""The label values that mean the same everywhere."""

VOID = -1
"""Pixels of this label count for nothing, in no loss and no score."""
