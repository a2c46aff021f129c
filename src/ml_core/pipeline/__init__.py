"""The stages, one module per verb; they meet on disk."""
