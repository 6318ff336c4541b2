"""What the operator knows of the world outside of Kubernetes: git repositories and S3 stores."""
