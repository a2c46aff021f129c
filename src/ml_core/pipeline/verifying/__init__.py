"""What `verify` does: takes recorded steps again, and writes and repeats witnesses."""
