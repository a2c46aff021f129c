"""What a cluster offers, what was asked of it, and what became of that. Loads without torch."""
