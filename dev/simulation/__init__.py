"""Compares policies for nodes without a cluster."""
