"""A real Kubernetes cluster on this machine, with or without a container engine.

`python -m dev.cluster up` builds every component from its Go module, makes keys and images, and
starts one node with a registry. Where a Docker engine answers, kind makes the cluster instead.
"""
