"""A Kubernetes operator that runs notebooks as functions of their parameters."""
