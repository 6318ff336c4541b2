"""From types to manifests and Dockerfiles: pure builders, compared with golden files."""
