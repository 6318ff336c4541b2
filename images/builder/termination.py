"""What a build container says last: JSON in its termination log, short and free of secrets."""

import json
import re
from pathlib import Path

LOG = Path("/dev/termination-log")
MAX_ERROR_BYTES = 2048
# The kubelet cuts a message at 4096 bytes, which would leave half a JSON document.
MAX_MESSAGE_BYTES = 4000

# The user of an ssh URL is no secret; that of an https URL may be a token.
_URL_CREDENTIALS = re.compile(r"(?<=://)(?<!ssh://)[^/\s@]+@")
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def clean(text: str, *, secrets: tuple[str, ...] = ()) -> str:
    """Remove credentials and terminal control sequences from a text that people will read."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CONTROL.sub("", _URL_CREDENTIALS.sub("***@", text))


def clip(text: str, limit: int = MAX_ERROR_BYTES) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, keeping its beginning."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: limit - 3].decode(errors="ignore") + "…"


def write(log: Path, *, digest: str | None = None, error: str | None = None) -> None:
    """Write the result of this container as its termination message."""
    if error is None:
        log.write_text(json.dumps({"digest": digest}))
        return
    limit = MAX_ERROR_BYTES
    message = json.dumps({"error": clip(error)}, ensure_ascii=False)
    while len(message.encode()) > MAX_MESSAGE_BYTES:
        limit -= 128
        message = json.dumps({"error": clip(error, limit)}, ensure_ascii=False)
    log.write_text(message)
