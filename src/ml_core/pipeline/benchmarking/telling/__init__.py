"""The figures as text and as plots."""
