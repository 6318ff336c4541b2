"""Events are named after what they say about which version of an object."""

from datetime import UTC, datetime

import pytest

from labfunctions_operator.kube.events import build_event
from labfunctions_operator.reconcile.plan import Event

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
RUN = {
    "apiVersion": "labfunctions.io/v1alpha1",
    "kind": "Run",
    "metadata": {"name": "r", "namespace": "team", "uid": "u", "resourceVersion": "7"},
}
STARTED = Event(type="Normal", reason="Started", message="on node a")


def test_event_is_about_its_object() -> None:
    event = build_event(RUN, STARTED, NOW)
    assert event["involvedObject"] == {
        "apiVersion": "labfunctions.io/v1alpha1",
        "kind": "Run",
        "namespace": "team",
        "name": "r",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert event["metadata"]["namespace"] == "team"
    assert event["lastTimestamp"] == "2026-01-02T03:04:05Z"


def test_event_of_the_same_version_has_the_same_name_and_of_another_not() -> None:
    later = {**RUN, "metadata": {**RUN["metadata"], "resourceVersion": "8"}}  # type: ignore[dict-item]
    name = build_event(RUN, STARTED, NOW)["metadata"]["name"]
    assert build_event(RUN, STARTED, datetime.now(UTC))["metadata"]["name"] == name
    assert build_event(later, STARTED, NOW)["metadata"]["name"] != name


def test_event_of_a_cluster_scoped_object_lives_in_default() -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u"}}
    node["metadata"]["resourceVersion"] = "1"  # type: ignore[index]
    event = build_event(node, STARTED, NOW)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


@pytest.mark.parametrize("message", ["x" * 1024, "x" * 2000, "é" * 2000])
def test_event_message_fits_the_limit_of_the_api(message: str) -> None:
    shortened = build_event(RUN, Event(type="Normal", reason="R", message=message), NOW)["message"]
    assert len(shortened.encode()) <= 1024
    assert shortened == message or shortened.endswith("…")
