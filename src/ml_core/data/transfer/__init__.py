"""Getting data to where they are needed: downloads, and copies on a machine's own disk."""
