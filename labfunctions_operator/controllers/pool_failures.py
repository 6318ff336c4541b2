"""What failures of a provider of nodes mean: what is said of them, and when it is asked again."""

import logging

from labfunctions_operator.controllers import backoff
from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient
from labfunctions_operator.reconcile.bounds import DRIFTED
from labfunctions_operator.reconcile.plan import Key, Problem

logger = logging.getLogger(__name__)

# Of a look and a write together; each call of a provider has a timeout of its own below it.
CALL_TIMEOUT = 90.0
FIRST_DELAY = 2.0


def delay_after(error: Exception, failures: int) -> float:
    """Return the seconds until a provider is asked again, after so many failures before this."""
    return backoff.delay_after(error, failures, first=FIRST_DELAY)


def log_failure(key: Key, problem: Problem, error: Exception) -> None:
    """Log what a group says of its pool; with a traceback where the fault is ours."""
    is_bug = problem.reason == "InternalError"
    logger.log(
        logging.ERROR if is_bug else logging.WARNING,
        "pool of NodeGroup %s: %s",
        key.name,
        problem.message,
        exc_info=error if is_bug else None,
    )


def problem_of(error: Exception) -> Problem:
    """Say in one line why a provider was asked in vain."""
    for kind, reason in (
        (Drifted, DRIFTED),
        (TimeoutError, "ProviderTimeout"),
        (Transient, "ProviderUnavailable"),
        (Denied, "Forbidden"),
        (NotFound, "PoolNotFound"),
        (InvalidSpec, "InvalidSpec"),
    ):
        if isinstance(error, kind):
            text = str(error) or f"no answer within {CALL_TIMEOUT:.0f} s"
            return Problem(reason=reason, message=" ".join(text.split())[:400])
    return Problem(reason="InternalError", message=f"{type(error).__name__}: {error}"[:400])
