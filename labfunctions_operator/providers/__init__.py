"""What the operator knows of the world outside of Kubernetes: git, stores, and who is told."""
