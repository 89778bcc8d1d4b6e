"""Silver: cleaning, classification, and the split of rule-breaking rows."""
