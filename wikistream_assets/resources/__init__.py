"""What differs between local and aws: where Spark runs, which catalog, which broker, who is told."""
