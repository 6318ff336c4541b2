"""What the runner is told to do."""

from __future__ import annotations

import json
import re
import time
from typing import Any, NamedTuple

from labfunctions_operator.runner.notebook_run.pod import now


class Config(NamedTuple):
    """What the operator asks for, from RUNNER_CONFIG."""

    notebook: str
    parameters: dict[str, Any]
    inject: dict[str, Any]
    policy: str
    timeout: float | None
    cell_timeout: float | None
    mask: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, job: str | None = None) -> Config:
        """Reads the configuration from JSON; of a Job that a CronJob made, the rest from its name.

        A CronJob has one text for all its Jobs.
        """
        raw = json.loads(text)
        inject = raw.get("inject") or {}
        if raw.get("namedByJob"):
            inject = {**inject, **names_of_job(str(job or ""), str(inject.get("WFID")))}
        return cls(
            notebook=raw["notebook"],
            parameters=raw.get("parameters") or {},
            inject=inject,
            policy=raw.get("parametersPolicy") or "Strict",
            timeout=raw.get("timeoutSeconds"),
            cell_timeout=raw.get("cellTimeoutSeconds"),
            mask=tuple(raw.get("mask") or ()),
        )


def names_of_job(job: str, workflow: str) -> dict[str, Any]:
    """What a notebook gets from a CronJob's Job, which is named by the minutes of its tick."""
    found = re.match(re.escape(workflow) + r"-([1-9][0-9]{7})$", job)
    tick = time.gmtime(int(found.group(1)) * 60) if found else None
    return {
        "EXECID": job,
        "NOW": now(),
        "SCHEDULED_AT": time.strftime("%Y-%m-%dT%H:%M:%SZ", tick) if tick else None,
    }
