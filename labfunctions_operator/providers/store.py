"""The S3 store that keeps what Runs leave behind."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
)

from labfunctions_operator.errors import Denied, NotFound, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SIGNATURE_LIMIT = 7 * 24 * 3600
"""S3 refuses a signature that shall be valid for longer."""
DELETE_LIMIT = 1000
"""S3 deletes no more at one request."""

_TRANSIENT_CODES = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException"}
)
_CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    connect_timeout=3,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},
    # Servers other than AWS, and whoever uses a signed URL, need not know its newer checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in the store: its key below the prefix, and when it was last written."""

    key: str
    written: datetime


class Store:
    """One bucket, below one prefix. Every method but those that sign or name blocks.

    Args:
        endpoint: URL of the server; None for AWS.
        region: Of the bucket.
        bucket: Its name.
        prefix: Comes before every key; may be empty.
        access_key: None to use the SDK's usual chain of credentials.
        secret_key: Belongs to the access key.
    """

    def __init__(
        self,
        *,
        endpoint: str | None,
        region: str,
        bucket: str,
        prefix: str,
        access_key: str | None,
        secret_key: str | None,
    ) -> None:
        self._bucket = bucket
        self._region = region
        self._aws = endpoint is None
        self._prefix = prefix.strip("/")
        self._name = f"{endpoint or 'S3'} (bucket {bucket})"
        try:
            self._client: S3Client = boto3.session.Session().client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=_CONFIG,
            )
        except (BotoCoreError, ValueError) as error:
            raise Denied(f"the store {self._name} is not configured well: {error}") from error

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def ensure_bucket(self) -> None:
        """Creates the bucket unless it exists."""
        try:
            with self._translated("look for the bucket"):
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            with self._translated("create the bucket"):
                self._create_bucket()

    def _create_bucket(self) -> None:
        try:
            if self._aws and self._region != "us-east-1":
                self._client.create_bucket(
                    Bucket=self._bucket,
                    CreateBucketConfiguration={"LocationConstraint": self._region},  # type: ignore[typeddict-item]
                )
            else:
                self._client.create_bucket(Bucket=self._bucket)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            pass  # another process was faster

    def sign_put(self, key: str, *, expires: int) -> str:
        """Signs a URL that may write this one key, any number of times, and nothing else.

        Args:
            key: Below the prefix.
            expires: Seconds; at most seven days count. Credentials that expire earlier, as those
                of a cloud's workload identity do, end the signature with them.
        """
        with self._translated("sign an upload"):
            return self._client.generate_presigned_url(
                "put_object",
                Params={"Bucket": self._bucket, "Key": self._key(key)},
                ExpiresIn=min(expires, SIGNATURE_LIMIT),
                HttpMethod="PUT",
            )

    def sign_get(self, key: str, *, expires: int) -> str:
        """Signs a URL that may read this one key, for some seconds; the same limits hold.

        See `ends_with_credentials`.
        """
        with self._translated("sign a link"):
            return self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._key(key)},
                ExpiresIn=min(expires, SIGNATURE_LIMIT),
                HttpMethod="GET",
            )

    def key_of(self, uri: str) -> str | None:
        """Returns the key of what `uri` names, or None where that is not in this store."""
        start = self.uri("")
        return uri.removeprefix(start) if uri.startswith(start) else None

    def uri(self, key: str) -> str:
        """Names an object for people and for other tools."""
        return f"s3://{self._bucket}/{self._key(key)}"

    def put_json(self, key: str, value: Any) -> str:
        """Writes an object and returns its entity tag."""
        body = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        with self._translated(f"write {key}"):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(key),
                Body=body,
                ContentType="application/json",
            )
        return answer["ETag"].strip('"')

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Lists the files whose keys begin so, a page of 1000 at a request."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._translated(f"list {prefix}"):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix)):
                for found in page.get("Contents", []):
                    key = found["Key"][len(self._key("")) :]
                    yield StoredFile(key=key, written=found["LastModified"])

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes files, 1000 at a request; one that is not there is as good as deleted."""
        for start in range(0, len(keys), DELETE_LIMIT):
            batch = keys[start : start + DELETE_LIMIT]
            with self._translated(f"delete {batch[0]} and {len(batch) - 1} more"):
                answer = self._client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": self._key(key)} for key in batch], "Quiet": True},
                )
            if errors := answer.get("Errors"):
                first = errors[0]
                raise Denied(
                    f"the store {self._name} did not delete {len(errors)} files, the first being"
                    f" {first.get('Key')}: {first.get('Code')} {first.get('Message', '')}".rstrip()
                )

    def exists(self, key: str) -> bool:
        """Tells whether an object has been written."""
        try:
            with self._translated(f"look for {key}"):
                self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except NotFound:
            return False
        return True

    def get(self, key: str) -> bytes:
        """Reads an object.

        Raises:
            NotFound: Nothing has been written under this key.
        """
        with self._translated(f"read {key}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            with answer["Body"] as body:
                return body.read()

    def get_short(self, key: str, limit: int) -> bytes | None:
        """Reads an object of at most so many bytes; a longer one is None.

        Raises:
            NotFound: Nothing has been written under this key.
        """
        with self._translated(f"read {key}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            with answer["Body"] as body:
                return None if answer["ContentLength"] > limit else body.read(limit)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        """Turns the SDK's failures into those that the engine tells apart."""
        failed = f"could not {action} in the store {self._name}"
        try:
            yield
        except ClientError as error:
            raise _from_answer(error, failed) from error
        except (ConnectionError, HTTPClientError) as error:
            raise Transient(f"{failed}: {_one_line(error)}") from error
        except BotoCoreError as error:
            raise Denied(f"{failed}: {_one_line(error)}") from error


def ends_with_credentials(url: str) -> bool:
    """Whether a signed URL may end before its time: temporary credentials come with a token."""
    return "X-Amz-Security-Token=" in url


def _from_answer(error: ClientError, failed: str) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    answer = error.response.get("ResponseMetadata", {})
    status = answer.get("HTTPStatusCode", 0)
    message = f"{failed}: {_one_line(error)}"
    if status == 404:
        return NotFound(message)
    if status == 429 or status >= 500 or code in _TRANSIENT_CODES:
        retry_after = answer.get("HTTPHeaders", {}).get("retry-after", "")
        return Transient(message, float(retry_after) if retry_after.isdigit() else None)
    return Denied(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
