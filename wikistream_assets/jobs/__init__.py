"""Entry points that read, transform, audit on a branch, publish and report. They take a session and a lake, no Dagster."""
