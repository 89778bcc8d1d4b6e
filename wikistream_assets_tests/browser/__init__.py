"""The Dagster UI as people see it."""
