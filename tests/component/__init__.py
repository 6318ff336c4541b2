"""Against a real API server, etcd, controller manager and scheduler; no node is needed."""
