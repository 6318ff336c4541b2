"""When what failed is tried again, whoever tries it."""

from labfunctions_operator.errors import Denied, Transient

# Seconds.
DENIED_DELAY = 60.0
LAST_DELAY = 300.0


def delay_after(
    error: Exception, failures: int, *, first: float, denied: float = DENIED_DELAY
) -> float:
    """Return the seconds until the next try: twice as many each time, or as many as are asked for.

    Args:
        error: Why this one failed.
        failures: How many have failed before it, in a row.
        first: After the first failure.
        denied: The same where an administrator must grant something.
    """
    start = denied if isinstance(error, Denied) else first
    asked = error.retry_after if isinstance(error, Transient) else None
    return max(min(LAST_DELAY, start * 2.0 ** min(failures, 16)), asked or 0.0)
