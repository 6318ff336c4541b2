"""The line that each decision about a status leaves in the log."""

import logging
from typing import Any

import pytest
from objects import make_object, stamp

from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.reconcile.plan import Plan


class Client:
    """Stores what it is told."""

    async def patch_status(self, *, status: Any, **of: Any) -> Any:
        return make_object(of["kind"], of["name"], {}, status)


@pytest.mark.parametrize(
    ("kind", "summary"),
    [
        ("Run", "Succeeded"),
        ("Backfill", "Succeeded"),
        ("Workflow", "Ready"),
        ("Project", "Ready"),
        ("NodeGroup", "Ready"),
    ],
)
async def test_a_change_of_status_says_what_it_went_from_and_to(
    kind: str, summary: str, caplog: pytest.LogCaptureFixture
) -> None:
    def status(reason: str) -> Any:
        condition = {"status": "Unknown", "message": "", "lastTransitionTime": stamp()}
        others = {"type": "Other", "reason": "Else", **condition}
        return {"conditions": [others, {"type": summary, "reason": reason, **condition}]}

    obj = make_object(kind, "demo", {}, status("Before"), resourceVersion="1")
    caplog.set_level(logging.INFO)
    executor = Executor(Client(), {})  # type: ignore[arg-type]
    await executor.execute(Plan(status=status("After")), obj)
    [line] = caplog.records
    assert vars(line)["action"] == "status"
    assert (vars(line)["from"], vars(line)["to"]) == ("Before", "After")
    await executor.execute(Plan(status=status("Before")), obj)
    assert len(caplog.records) == 1, "what is there already is no decision"
