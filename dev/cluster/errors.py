"""The one error of this package."""


class ClusterError(Exception):
    """Something failed; the message is one line that a person can act on."""
