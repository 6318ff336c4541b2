"""A git server inside the cluster, for the demo and the end-to-end tests."""
