"""Dagster objects of this layer."""
