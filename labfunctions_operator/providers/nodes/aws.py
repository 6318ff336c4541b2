"""Calls of one AWS service: off the event loop, bounded in time, with failures of our own kinds."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoRegionError,
    ParamValidationError,
)
from botocore.exceptions import ConnectionError as BrokenConnection
from botocore.exceptions import HTTPClientError as BrokenHttp
from botocore.parsers import ResponseParserError

from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient

CALL_SECONDS = 30.0
"""For one call with all its retries; the SDK's own limits end most of them earlier."""

_CONFIG = Config(
    connect_timeout=3,
    read_timeout=8,
    retries={"mode": "adaptive", "total_max_attempts": 3},
    # A provider never asks two things at once.
    max_pool_connections=1,
)

_TRANSIENT = frozenset(
    {
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ResourceContention",
        "ResourceInUse",
        "ResourceInUseException",
        "ScalingActivityInProgress",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IDPRejectedClaim",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "LimitExceeded",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "ResourceLimitExceededException",
        "ServiceLinkedRoleFailure",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)


class Aws:
    """One service in one region, with the credentials of the SDK's usual chain.

    A thread of its own keeps a service that hangs away from everything else, and a call that was
    given up on from overlapping with the next one.

    Args:
        service: As the SDK names it.
        region: Of the service.
        path: Of the spec's field that names the region and the pool.
    """

    def __init__(self, service: str, *, region: str, path: str) -> None:
        self._service = service
        self._region = region
        self._path = path
        self._client: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"aws-{service}")

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call an operation of the service by its name in the SDK."""
        doing = f"{self._service} {operation} in {self._region}"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await loop.run_in_executor(
                    self._thread, partial(self._call, operation, arguments)
                )
        except TimeoutError as error:
            raise Transient(f"{doing}: no answer within {CALL_SECONDS:g} s") from error
        # OSError: a file of credentials that cannot be read. ValueError: settings of the SDK.
        except (BotoCoreError, ClientError, ResponseParserError, OSError, ValueError) as error:
            raise failure_of(error, doing=doing, path=self._path) from error

    async def close(self) -> None:
        """Let go of connections; a call under way ends by the SDK's limits."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _call(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            # Here, as it reads many files and may ask the machine's metadata for credentials.
            session: Any = boto3.session.Session()
            self._client = session.client(self._service, region_name=self._region, config=_CONFIG)
        called: Callable[..., dict[str, Any]] = getattr(self._client, operation)
        return called(**arguments)


def failure_of(error: Exception, *, doing: str, path: str) -> Exception:
    """Return the exception that stands for a failure of the SDK.

    Args:
        error: What the SDK raised.
        doing: The call, as a person would name it.
        path: Of the field to blame for a call that AWS finds invalid.
    """
    if isinstance(error, ClientError):
        return _refusal(error, doing, path)
    message = f"{doing}: {one_line(error)}"
    if isinstance(error, ParamValidationError | InvalidRegionError | NoRegionError):
        return InvalidSpec(path, message)
    if isinstance(error, BrokenConnection | BrokenHttp | ResponseParserError):
        return Transient(message)
    return Denied(message)


def one_line(error: object) -> str:
    """Return what an error says, short and without line breaks."""
    return " ".join(str(error).split())[:300]


def _refusal(error: ClientError, doing: str, path: str) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    answer = error.response.get("ResponseMetadata", {})
    status = answer.get("HTTPStatusCode", 0)
    # Without the SDK's own words, which count its attempts.
    message = f"{doing}: {code}: {one_line(error.response.get('Error', {}).get('Message', ''))}"
    if code in _DENIED or status in (401, 403):
        return Denied(message)
    if code in _TRANSIENT or status in (409, 429) or status >= 500:
        retry_after = answer.get("HTTPHeaders", {}).get("retry-after", "")
        return Transient(message, float(retry_after) if retry_after.isdigit() else None)
    return NotFound(message) if status == 404 else InvalidSpec(path, message)
