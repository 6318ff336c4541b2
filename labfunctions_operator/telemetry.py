"""Logs as one JSON object a line, each with the object that it is about."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "object"}
# What is never meant to be logged, should an error of a library's quote it.
_SECRETS = re.compile(
    r"(?P<userinfo>(?<=://)[^/@\s\"\\]+(?=@))"
    r"|(?P<value>(?i:(?<=signature=)|(?<=token=)|(?<=credential=)|(?<=bearer ))[^&\s\"\\]+)"
)

_NOTHING: dict[str, Any] = {}
_subject: ContextVar[dict[str, Any]] = ContextVar("subject", default=_NOTHING)


def speak_of(obj: Mapping[str, Any]) -> None:
    """Let the lines of this task, and of those that it starts, be about an object."""
    metadata = obj["metadata"]
    _subject.set(
        {
            "kind": obj["kind"],
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "generation": metadata.get("generation", 0),
        }
    )


class JsonFormatter(logging.Formatter):
    """Writes a record with its object, and whatever was passed as `extra`.

    The extra `object` names another object than the one that the task speaks of.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = vars(record).get("object")
        line |= _subject.get() | (about if isinstance(about, dict) else {})
        line |= {
            key: value
            for key, value in vars(record).items()
            if key not in _STANDARD and isinstance(value, str | int | float | dict)
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _SECRETS.sub("[masked]", json.dumps(line, default=str))


def log_as_json(level: int) -> None:
    """Send all logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of each event and aiohttp of each probe; we say what we decide.
    for name in ("kopf", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
