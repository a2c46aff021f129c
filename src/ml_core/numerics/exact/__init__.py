"""Arithmetic whose results do not depend on the order in which it is done."""
