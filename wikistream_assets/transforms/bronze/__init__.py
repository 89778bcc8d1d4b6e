"""Bronze: Kafka records to rows."""
