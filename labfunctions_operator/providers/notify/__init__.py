"""Sends messages: one module for each medium, and one that says which addresses may be called."""
