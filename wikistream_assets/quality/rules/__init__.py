"""The rules themselves, one module per layer; ``tables`` attaches them to the contracts."""
