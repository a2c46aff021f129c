"""What opening the test split takes."""
