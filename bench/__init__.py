"""Side-by-side measurements: each prints a ratio whose two sides ran in turn in the same run."""
