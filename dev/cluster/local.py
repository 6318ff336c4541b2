"""The local cluster, however this machine can have one: by kind, or by its own processes."""

from pathlib import Path

from dev.cluster import kind, machine


def up() -> Path:
    """Start what does not run and return the kubeconfig's path."""
    return kind.up() if kind.is_available() else machine.up()


def down() -> None:
    """End the cluster and remove all that it left, but for the cache."""
    if kind.is_available():
        kind.down()
    else:
        machine.down()


def status() -> bool:
    """Print what runs; tell whether all of it does."""
    return kind.status() if kind.is_available() else machine.status()
