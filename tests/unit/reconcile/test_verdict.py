import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import (
    ALL_STORED,
    at,
    courier_says,
    created,
    ended,
    held,
    make_pod,
    runner_says,
    running,
    stamp,
    terminated,
)

from labfunctions_operator.reconcile.pods import PodEvent, waiting
from labfunctions_operator.reconcile.verdict import (
    judge,
    lost_in,
    notebook_started,
)

JOB = created(
    {"kind": "Job", "metadata": {"name": "first-1", "namespace": "team", "labels": {}}}, seconds=0
)
STORED = {name: f"tag-{name}" for name in ("notebook.ipynb", "notebook.html", "result.json")}
COURIER_OK = terminated(0, ALL_STORED)
CELL = {"index": 2, "id": "a3", "source": "1/0"}
EXCEPTION = {"name": "ZeroDivisionError", "message": "division by zero"}


def finished(notebook: dict[str, Any] | None, **pod: Any) -> dict[str, Any]:
    pod = {"phase": "Failed", "courier": COURIER_OK, **pod}
    return make_pod(JOB, notebook=notebook, **pod)


def test_success_is_what_the_runner_says_once_all_is_stored() -> None:
    said = runner_says(message="7 cells", progress={"cell": 7, "cells": 7, "name": "End"})
    verdict = judge(JOB, finished(terminated(0, said), phase="Succeeded"), at(60))
    assert verdict is not None
    assert (verdict.reason, verdict.message, verdict.failure) == ("Succeeded", "7 cells", None)
    assert (verdict.started, verdict.finished) == (stamp(2), stamp(50))
    assert verdict.stored == STORED
    assert verdict.progress
    assert verdict.progress.wire() == {"cell": 7, "cells": 7, "name": "End", "summary": "7/7"}


def test_results_and_versions_are_kept_as_the_api_server_can_store_them() -> None:
    said = runner_says(
        message="1 cell", results={"n": 2**70, "list": [2**63, 1.5, None]}, versions={"python": "3"}
    )
    verdict = judge(JOB, finished(terminated(0, said), phase="Succeeded"), at(60))
    assert verdict is not None
    assert verdict.results == {"n": str(2**70), "list": [str(2**63), 1.5, None]}
    assert verdict.versions == {"python": "3"}


def test_a_node_that_does_not_report_is_not_given_the_grace_period() -> None:
    pod = make_pod(JOB, phase="Running", notebook=running())
    pod["metadata"] |= {"deletionTimestamp": stamp(700), "deletionGracePeriodSeconds": 600}
    assert judge(JOB, pod, at(130)) is None
    assert judge(JOB, pod, at(129), node_silent=True) is None
    verdict = judge(JOB, pod, at(130), node_silent=True)
    assert verdict is not None
    assert verdict.reason == "Disrupted"
    assert lost_in(pod, at(110), node_silent=True) == 20
    assert lost_in(pod, at(110)) == 620


def test_a_silent_node_ends_nothing_that_nobody_asked_to_end() -> None:
    pod = make_pod(JOB, phase="Running", notebook=running())
    assert judge(JOB, pod, at(100000), node_silent=True) is None


def test_a_pod_that_never_ends_is_lost_with_its_node() -> None:
    pod = make_pod(JOB, phase="Running", notebook=running())
    pod["metadata"]["deletionTimestamp"] = stamp(100)
    assert judge(JOB, pod, at(129)) is None
    verdict = judge(JOB, pod, at(130))
    assert verdict is not None
    assert (verdict.reason, verdict.message) == (
        "Disrupted",
        "the pod had to end and never did: its node is lost",
    )


def deleted(pod: dict[str, Any]) -> dict[str, Any]:
    return {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": stamp(600)}}


def unknown(*, started: bool = True) -> dict[str, Any]:
    """What kubelet says of a container that it cannot find."""
    state = terminated(137, reason="ContainerStatusUnknown")
    return state if started else {"terminated": {**state["terminated"], "startedAt": None}}


EVICTED = "The node was low on resource: memory."
# In the words of kubelet 1.36, which says nothing of the containers of a pod that it refuses.
REFUSED = "Pod was rejected"
SHUT_DOWN: dict[str, Any] = {
    "reason": "Terminated",
    "message": "Pod was terminated in response to imminent node shutdown.",
    "conditions": [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "TerminationByKubelet",
            "message": "Pod was terminated in response to imminent node shutdown.",
        }
    ],
}
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a cell raised": (
        finished(terminated(1, runner_says("NotebookError", message="cell 2: it broke"))),
        "NotebookError",
        "cell 2: it broke",
    ),
    "the kernel died": (
        finished(terminated(138, runner_says("KernelDied", message="the kernel died"))),
        "KernelDied",
        "the kernel died",
    ),
    "time ran out": (
        finished(terminated(124, runner_says("TimedOut", message="after 10 s"))),
        "TimedOut",
        "after 10 s",
    ),
    "parameters do not fit": (
        finished(terminated(64, runner_says("ParametersInvalid", message="n: is no int"))),
        "ParametersInvalid",
        "n: is no int",
    ),
    "the image has no papermill": (
        finished(terminated(69, runner_says("RunnerMissing", message="no papermill"))),
        "RunnerMissing",
        "no papermill",
    ),
    "it ran, but could not be stored": (
        finished(
            terminated(0, runner_says()),
            phase="Succeeded",
            courier=terminated(1, courier_says(error="no such\nbucket")),
        ),
        "OutputLost",
        "the notebook ran, but could not be stored: no such bucket",
    ),
    "it ran, and only an earlier state is stored": (
        finished(
            terminated(0, runner_says()),
            courier=terminated(1, courier_says("notebook.ipynb", error="no such bucket")),
        ),
        "OutputLost",
        "the notebook ran, but its last state could not be stored: no such bucket",
    ),
    "deleted before it started": (
        deleted(finished(unknown(started=False))),
        "Disrupted",
        "the pod was deleted before the notebook ran",
    ),
    "deleted, and killed when its grace was over": (
        deleted(finished(terminated(137))),
        "Disrupted",
        "the pod was deleted before the notebook could end",
    ),
    "its node restarted, and kubelet finds nothing": (
        finished(unknown()),
        "Disrupted",
        "the node lost the notebook's container, as when it restarts",
    ),
    "its node restarted, and containerd knows no end": (
        finished(terminated(255, reason="Unknown")),
        "Disrupted",
        "the node lost the notebook's container, as when it restarts",
    ),
    "it ran, and the courier left no word": (
        finished(terminated(0, runner_says()), phase="Succeeded", courier=terminated(137)),
        "OutputLost",
        "the notebook ran, but could not be stored: the courier was stopped before it could finish",
    ),
    "a cell raised, and it could not be stored": (
        finished(
            terminated(1, runner_says("NotebookError", message="it broke")),
            courier=terminated(1, courier_says(error="HTTP 403")),
        ),
        "NotebookError",
        "it broke; its notebook could not be stored: HTTP 403",
    ),
    "the container ran out of memory": (
        finished(terminated(137, reason="OOMKilled"), memory="2Gi"),
        "OutOfMemory",
        "the notebook used more memory than its limit of 2Gi",
    ),
    "the container ran out of memory, and no limit is known": (
        finished(terminated(137, reason="OOMKilled")),
        "OutOfMemory",
        "the notebook used more memory than its limit",
    ),
    "the container ran out of memory after the runner's last word": (
        finished(terminated(137, runner_says("KernelDied"), reason="OOMKilled")),
        "OutOfMemory",
        "the notebook used more memory than its limit",
    ),
    "the kernel ran out of memory, and the runner saw it": (
        finished(terminated(137, runner_says("OutOfMemory", message="used more than 1Gi"))),
        "OutOfMemory",
        "used more than 1Gi",
    ),
    "the pod was evicted": (
        make_pod(JOB, phase="Failed", reason="Evicted", message=EVICTED),
        "Disrupted",
        f"{EVICTED}; its notebook could not be stored: "
        "the courier was stopped before it could finish",
    ),
    "the pod was evicted while the notebook ran, and all was stored": (
        finished(terminated(137), reason="Evicted", message=EVICTED),
        "Disrupted",
        EVICTED,
    ),
    "the pod was preempted": (
        finished(
            terminated(143),
            conditions=[
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "preempting to make room",
                }
            ],
        ),
        "Disrupted",
        "preempted by a pod of higher priority",
    ),
    "the pod was disrupted without a word": (
        finished(terminated(143), conditions=[{"type": "DisruptionTarget", "status": "True"}]),
        "Disrupted",
        "the pod was evicted",
    ),
    "the node was shut down, and the notebook killed": (
        finished(terminated(137), **SHUT_DOWN),
        "Disrupted",
        "ended because its node was shut down",
    ),
    "the node was shut down by a kubelet that sets no condition": (
        finished(terminated(137), reason="Terminated", message="Pod was terminated …"),
        "Disrupted",
        "ended because its node was shut down",
    ),
    "the node was being shut down when the pod came": (
        make_pod(JOB, phase="Failed", reason="NodeShutdown", message=f"{REFUSED}: …"),
        "Disrupted",
        "refused by its node, which was being shut down",
    ),
    "the node never started the pod": (
        make_pod(JOB, phase="Failed", reason="NodeAffinity", message=f"{REFUSED}: no match"),
        "Disrupted",
        "Pod was rejected: no match",
    ),
    "the pod ended before anything ran": (
        finished(None),
        "Disrupted",
        "the pod ended before the notebook ran",
    ),
    "the image has no python": (
        finished(terminated(127)),
        "RunnerMissing",
        "the image has no python; build it from a project, or add papermill",
    ),
    "the image has no shell": (
        finished(terminated(128, 'exec: "/bin/sh":\n not found', reason="StartError")),
        "StartError",
        'exec: "/bin/sh": not found',
    ),
    "the container did not start, without a word": (
        finished(terminated(128, reason="ContainerCannotRun")),
        "StartError",
        "the container did not start",
    ),
    "the container was killed": (
        finished(terminated(137)),
        "KernelDied",
        "the notebook's container was killed from outside (SIGKILL)",
    ),
    "the runner broke": (
        finished(terminated(70)),
        "InternalError",
        "the runner ended with exit code 70 and left no result",
    ),
    "the runner left something else": (
        finished(terminated(0, "done!"), phase="Succeeded"),
        "InternalError",
        "the runner ended with exit code 0 and left no result",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_of_an_ended_pod(case: str) -> None:
    pod, reason, message = CASES[case]
    verdict = judge(JOB, pod, at(60))
    assert verdict is not None
    assert (verdict.reason, verdict.message) == (reason, message)
    assert verdict.failure is not None
    assert verdict.failure.reason == reason


def test_a_failure_keeps_cell_exception_exit_code_and_progress() -> None:
    said = runner_says(
        "NotebookError", cell=CELL, exception=EXCEPTION, progress={"cell": 3, "cells": 7}
    )
    verdict = judge(JOB, finished(terminated(1, said)), at(60))
    assert verdict is not None
    assert verdict.failure is not None
    assert verdict.failure.wire() == {
        "reason": "NotebookError",
        "cell": CELL,
        "exception": EXCEPTION,
        "exitCode": 1,
    }
    assert verdict.progress
    assert verdict.progress.summary == "3/7"


def test_out_of_memory_keeps_the_cell_and_the_progress_that_the_runner_saw() -> None:
    said = runner_says("KernelDied", cell=CELL, progress={"cell": 3, "cells": 7})
    verdict = judge(JOB, finished(terminated(137, said, reason="OOMKilled")), at(60))
    assert verdict is not None
    assert verdict.failure is not None
    assert verdict.failure.wire() == {"reason": "OutOfMemory", "cell": CELL, "exitCode": 137}
    assert verdict.progress
    assert verdict.progress.summary == "3/7"


def test_only_what_was_uploaded_is_stored() -> None:
    courier = terminated(0, courier_says("notebook.ipynb"))
    verdict = judge(JOB, finished(terminated(1, runner_says("TimedOut")), courier=courier), at(60))
    assert verdict is not None
    assert verdict.stored == {"notebook.ipynb": "tag-notebook.ipynb"}


def test_a_pod_that_never_ran_has_no_start_and_ends_no_earlier_than_it_was_made() -> None:
    verdict = judge(JOB, make_pod(JOB, phase="Failed", created=5, reason="Evicted"), at(60))
    assert verdict is not None
    assert (verdict.started, verdict.finished) == (None, stamp(5))


def test_a_pod_has_not_ended_while_its_courier_uploads() -> None:
    pod = make_pod(JOB, notebook=terminated(0, runner_says()), courier=running())
    assert judge(JOB, pod, at(60)) is None


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ({}, None),
        ({"conditions": [{"type": "Failed", "status": "False"}]}, None),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, None),
        (ended(JOB, "Failed", 60)["status"], "Disrupted"),
        (ended(JOB, "Complete", 60)["status"], "Disrupted"),
    ],
)
def test_verdict_without_a_pod_is_the_jobs(conditions: Any, reason: str | None) -> None:
    assert judge(None, None, at(99)) is None
    verdict = judge({**JOB, "status": conditions}, None, at(99))
    assert (verdict.reason if verdict else None) == reason
    if verdict:
        assert verdict.finished == stamp(60)
        assert (
            verdict.message
            == "the pod is gone before its result was seen: deleted, or lost with its node"
        )


BACK_OFF = "Back-off pulling\n  image"
WAITING: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "no pod yet": (None, "Starting", "waiting for the pod to be created"),
    "a pod just made": (
        make_pod(JOB, phase="Pending"),
        "Starting",
        "preparing the pod on its node",
    ),
    "no node fits": (
        make_pod(
            JOB,
            phase="Pending",
            conditions=[
                {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
            ],
        ),
        "Unschedulable",
        "0/3 nodes are available",
    ),
    "no node fits, without a word": (
        make_pod(JOB, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False"}]),
        "Unschedulable",
        "no node fits yet",
    ),
    "the image cannot be pulled": (
        make_pod(JOB, phase="Pending", notebook=held("ImagePullBackOff", BACK_OFF)),
        "ImagePullFailed",
        "cannot pull example.com/notebook: Back-off pulling image",
    ),
    "the courier's image cannot be pulled": (
        make_pod(JOB, phase="Pending", courier=held("ErrImagePull")),
        "ImagePullFailed",
        "cannot pull example.com/courier: ErrImagePull",
    ),
    "a secret is missing": (
        make_pod(
            JOB,
            phase="Pending",
            notebook=held("CreateContainerConfigError", 'secret "api" not found'),
        ),
        "StartError",
        'the container cannot start: secret "api" not found',
    ),
    "the courier prepares": (
        make_pod(JOB, phase="Pending", courier=running(), notebook=held("PodInitializing")),
        "Starting",
        "starting the container",
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_why_a_notebook_does_not_run_yet(case: str) -> None:
    pod, reason, message = WAITING[case]
    why = waiting(pod, "notebook")
    assert why is not None
    assert (why.reason, why.message) == (reason, message)


@pytest.mark.parametrize(
    ("event", "reason", "message"),
    [
        (
            ("Pulling", 'Pulling image "example.com/notebook:1"'),
            "Pulling",
            "pulling image example.com/notebook:1",
        ),
        (("Pulled", "Successfully pulled"), "Starting", "preparing the pod on its node"),
        (
            ("FailedMount", 'MountVolume.SetUp failed for volume "a" : configmap "b" not found'),
            "StartError",
            'cannot mount a volume: MountVolume.SetUp failed for volume "a" :'
            ' configmap "b" not found',
        ),
        (
            ("FailedAttachVolume", "Multi-Attach error for volume x"),
            "Starting",
            "cannot mount a volume: Multi-Attach error for volume x",
        ),
    ],
)
def test_how_far_a_start_has_come_is_what_the_events_of_the_pod_say(
    event: tuple[str, str], reason: str, message: str
) -> None:
    why = waiting(make_pod(JOB, phase="Pending"), "notebook", PodEvent(*event))
    assert why is not None
    assert (why.reason, why.message) == (reason, message)


@pytest.mark.parametrize("state", [running(2), terminated(1)])
def test_a_notebook_that_runs_or_ran_waits_for_nothing(state: dict[str, Any]) -> None:
    pod = make_pod(JOB, notebook=state)
    assert waiting(pod, "notebook") is None
    assert notebook_started(pod) == stamp(2)


def test_a_notebook_that_waits_has_not_started() -> None:
    assert notebook_started(None) is None
    assert notebook_started(make_pod(JOB, notebook=held("PodInitializing"))) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 4000,
        '{"reason": ' * 300,
        "{}",
        "[]",
        "null",
        '"Succeeded"',
        '{"reason": ""}',
        '{"reason": "%s"}' % ("x" * 2000),
        '{"reason": "two words"}',
        '{"reason": "Succeeded\\n"}',
        '{"reason": 1}',
        '{"reason": "Succeeded", "progress": {"cell": 1e400, "cells": 1}}',
        '{"reason": "Succeeded", "progress": {"cell": NaN, "cells": 1}}',
        '{"reason": "\\ud800"}',
    ],
)
def test_a_notebook_may_write_anything_as_its_result(text: str) -> None:
    verdict = judge(JOB, finished(terminated(0, text), phase="Succeeded"), at(60))
    assert verdict is not None
    assert verdict.reason == "InternalError"


@given(text=st.text(max_size=60) | st.text(alphabet='[]{}":,\\ud8091eE-.', max_size=30))
def test_no_result_makes_the_verdict_raise(text: str) -> None:
    pod = finished(terminated(0, text), courier=terminated(0, text))
    verdict = judge(JOB, pod, at(60))
    assert verdict is not None
    json.dumps(verdict.reason).encode()


def test_a_long_message_of_the_cluster_is_made_one_short_line() -> None:
    pod = finished(None, reason="Evicted", message="word\n" * 1000)
    verdict = judge(JOB, pod, at(60))
    assert verdict is not None
    assert "\n" not in verdict.message
    assert len(verdict.message) == 400
