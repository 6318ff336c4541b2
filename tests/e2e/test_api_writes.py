"""What the operator writes, counted by the API server: a little for a Run, and else nothing."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.install import NAMESPACE

from .cluster import OPERATOR, Team, seconds_between
from .objects import inline_run, run

WRITES = ("create", "patch", "update", "delete", "deletecollection")


@pytest.fixture
def audit_log(control_plane: ControlPlane) -> Path:
    return control_plane.audit_log


def writes(log: Path, since: str, *namespaces: str) -> Counter[str]:
    """Count the operator's writes to some namespaces: `verb resource[/subresource] name`."""
    time.sleep(0.5)  # an entry is written once the response is out
    counted: Counter[str] = Counter()
    for path in sorted(log.parent.glob("audit*.log")):
        for line in path.read_text().splitlines():
            if OPERATOR not in line:
                continue
            entry = json.loads(line)
            target = entry.get("objectRef") or {}
            ours = entry["user"]["username"] == OPERATOR and entry["verb"] in WRITES
            new = entry["requestReceivedTimestamp"] >= since
            if ours and new and target.get("namespace", "") in namespaces:
                what = "/".join(filter(None, (target["resource"], target.get("subresource"))))
                counted[f"{entry['verb']} {what}"] += 1
    return counted


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextmanager
def watched(team: Team, run: str) -> Iterator[list[str]]:
    """Collect what `kubectl get -w` says of a Run meanwhile."""
    states: list[str] = []
    words = team.cluster.kubectl.command("-n", team.namespace, "get", "run", run, "--watch")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield states
        finally:
            process.terminate()
            assert process.stdout is not None
            states += process.stdout.read().splitlines()


def test_a_successful_run_costs_three_writes(lab: Team, audit_log: Path) -> None:
    """The Job, Running, Succeeded; and where the notebook is, at most once a minute."""
    lab.apply(run("first", "hello"))
    lab.await_success("first")  # from now on the node has the image
    since = now()
    lab.apply(run("quick", "hello", parameters={"name": "you"}))
    with watched(lab, "quick") as states:
        ended = lab.await_success("quick")
    counted = writes(audit_log, since, lab.namespace)
    status = ended["status"]
    minutes = 1 + int(seconds_between(status["startTime"], status["completionTime"]) // 60)
    assert counted.keys() == {"create jobs", "patch runs/status"}, states
    assert counted["create jobs"] == 1
    assert counted["patch runs/status"] <= 2 + minutes, states


def test_a_settled_world_costs_nothing(lab: Team, audit_log: Path) -> None:
    """A restart lists and looks at everything, as each sweep does."""
    lab.apply(run("done", "hello"), inline_run("failed", "nowhere.ipynb"))
    lab.await_success("done")
    lab.await_reason("run", "failed", "NotebookNotFound")
    since = now()
    lab.cluster.kubectl.run(
        "rollout", "restart", "deployment/labfunctions-operator", "-n", NAMESPACE
    )
    lab.cluster.await_operator()
    # Something new that comes last: once it is through, all before it is.
    lab.apply(inline_run("last", "../out.ipynb"))
    lab.await_reason("run", "last", "InvalidSpec")
    time.sleep(8)  # longer than the Project's interval: its source is read again meanwhile
    counted = writes(audit_log, since, lab.namespace, NAMESPACE, "")
    assert counted == {"patch runs/status": 1, "create events": 1}
