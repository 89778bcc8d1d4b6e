"""Expressions that more than one layer needs."""
