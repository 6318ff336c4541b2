"""The archive against a store that can be told to fail; the real one is in tests/providers."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from objects import at, make_object

from labfunctions_operator.controllers.archive import MAX_DELETED, PAUSE_SECONDS, Archive
from labfunctions_operator.controllers.world import World
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.reconcile.plan import Key, Plan

ENDED = {"phase": "Failed", "conditions": []}


@dataclass
class FakeStore:
    failure: Exception | None = None
    asked: int = 0
    objects: dict[str, Any] = field(default_factory=dict)

    def uri(self, key: str) -> str:
        return f"s3://b/{key}"

    def exists(self, key: str) -> bool:
        self.asked += 1
        if self.failure:
            raise self.failure
        return key in self.objects

    def put_json(self, key: str, value: Any) -> str:
        self.asked += 1
        if self.failure:
            raise self.failure
        self.objects[key] = value
        return "tag"


class Scene:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.seconds = 100.0
        self.world = World()
        self.archive = Archive(
            self.store,  # type: ignore[arg-type]
            self.world,
            lambda: at(0),
            monotonic=lambda: self.seconds,
        )

    async def complete(self, obj: Any, status: Any = ENDED) -> Plan:
        return await self.archive.complete(Plan(status=status), obj)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def recorded(plan: Plan) -> str:
    assert plan.status is not None
    [found] = [c for c in plan.status["conditions"] if c["type"] == "Recorded"]
    return str(found["status"])


async def test_what_is_stored_is_what_will_be_written(scene: Scene) -> None:
    plan = await scene.complete(make_object("Run", "first", {"projectRef": {"name": "wine"}}))
    [(key, content)] = scene.store.objects.items()
    assert key.startswith("team/wine/adhoc/first-")
    assert plan.status == content["status"]
    assert (recorded(plan), plan.requeue_after) == ("True", None)
    assert content["status"]["outputs"]["record"] == f"s3://b/{key}"


async def test_a_run_that_goes_on_or_is_recorded_asks_nothing(scene: Scene) -> None:
    obj = make_object("Run", "first", {})
    going = Plan(status={"phase": "Running"})
    assert await scene.archive.complete(going, obj) is going
    done = await scene.complete(obj)
    assert done.status is not None
    again = Plan()
    stored = {**obj, "status": done.status}
    assert await scene.archive.complete(again, stored) is again
    assert scene.store.asked == 1


@pytest.mark.parametrize("failure", [Transient("no answer"), Denied("403")])
async def test_a_store_that_fails_is_asked_once_for_all(scene: Scene, failure: Exception) -> None:
    scene.store.failure = failure
    for number in range(5):
        plan = await scene.complete(make_object("Run", f"run-{number}", {}))
        assert recorded(plan) == "False"
        assert plan.requeue_after is not None
        assert str(failure) in str(plan.status)
    assert scene.store.asked == 1
    scene.seconds += PAUSE_SECONDS
    scene.store.failure = None
    assert recorded(await scene.complete(make_object("Run", "run-0", {}))) == "True"
    assert scene.store.asked == 2


async def test_a_run_of_a_workflow_that_was_never_started_lies_with_its_workflow(
    scene: Scene,
) -> None:
    workflow = make_object("Workflow", "report", {"projectRef": {"name": "wine"}})
    workflow["metadata"]["resourceVersion"] = "1"
    scene.world.caches["Workflow"].upsert(workflow)
    for spec, folder in (
        ({"workflowRef": {"name": "report"}}, "team/wine/report/"),
        ({"workflowRef": {"name": "gone"}}, "team/unknown/gone/"),
        ({"workflowRef": {"name": ["odd"]}, "projectRef": 7}, "team/unknown/adhoc/"),
    ):
        scene.store.objects.clear()
        await scene.complete(make_object("Run", "first", spec))
        [key] = scene.store.objects
        assert key.startswith(folder)


RUNNING = {"phase": "Running", "attempts": [{"number": 1}]}


def deleted(name: str = "first", status: Any = RUNNING, **meta: Any) -> Any:
    return make_object("Run", name, {"projectRef": {"name": "wine"}}, status, **meta)


async def test_a_run_deleted_while_it_runs_is_recorded_once_the_store_is_back(
    scene: Scene,
) -> None:
    scene.store.failure = Transient("no answer")
    scene.archive.take_over(deleted())
    key = Key("Run", "team", "first")
    assert await scene.archive.record_deleted(key)
    scene.seconds += PAUSE_SECONDS
    scene.store.failure = None
    assert await scene.archive.record_deleted(key) is None
    [(path, content)] = scene.store.objects.items()
    assert path.startswith("team/wine/adhoc/first-")
    assert content["status"]["failure"] == {"reason": "Deleted"}
    assert content["status"]["outputs"]["record"] == f"s3://b/{path}"
    asked = scene.store.asked
    assert await scene.archive.record_deleted(key) is None
    assert scene.store.asked == asked


async def test_a_record_of_the_end_stays_when_the_run_is_deleted_before_its_status_says_so(
    scene: Scene,
) -> None:
    obj = deleted()
    await scene.complete(obj)
    before = dict(scene.store.objects)
    scene.archive.take_over(obj)
    assert await scene.archive.record_deleted(Key("Run", "team", "first")) is None
    assert scene.store.objects == before


async def test_of_many_deleted_runs_the_oldest_give_way(scene: Scene) -> None:
    for number in range(MAX_DELETED + 1):
        scene.archive.take_over(deleted(f"run-{number}"))
    for number in (0, 1, MAX_DELETED):
        await scene.archive.record_deleted(Key("Run", "team", f"run-{number}"))
    assert len(scene.store.objects) == 2
