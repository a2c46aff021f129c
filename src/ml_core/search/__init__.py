"""Searching for better settings: what is tried, where it is kept, who tries it, what it showed."""
