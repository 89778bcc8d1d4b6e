"""The quality rules of the edits, one module per layer; ``tables`` attaches them to the contracts."""
