"""The cache may hear of changes late, twice or out of order, and must not go back in time."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from labfunctions_operator.kube.cache import Cache

Object = dict[str, Any]


def make(name: str, version: int, *, uid: str = "u1", **labels: str) -> Object:
    return {
        "metadata": {
            "namespace": "team",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": labels,
        }
    }


def test_cache_keeps_own_response_over_a_late_event_of_the_same_object() -> None:
    cache = Cache()
    assert cache.upsert(make("a", 7, phase="new"))
    assert not cache.upsert(make("a", 5, phase="old"))
    assert cache.get("team", "a") == make("a", 7, phase="new")


def test_cache_takes_the_same_version_once() -> None:
    cache = Cache()
    assert cache.upsert(make("a", 7))
    assert not cache.upsert(make("a", 7))


def test_cache_compares_versions_as_numbers() -> None:
    cache = Cache()
    cache.upsert(make("a", 9))
    assert cache.upsert(make("a", 10))


def test_cache_does_not_revive_a_deleted_object_by_a_late_response() -> None:
    cache = Cache()
    cache.upsert(make("a", 5))
    cache.remove(make("a", 8))
    cache.advance("8")
    assert not cache.upsert(make("a", 7))
    assert cache.get("team", "a") is None


def test_cache_keeps_the_new_object_when_the_old_one_of_its_name_is_reported_deleted() -> None:
    cache = Cache()
    cache.upsert(make("a", 5, uid="old"))
    cache.upsert(make("a", 9, uid="new"))
    assert not cache.remove(make("a", 8, uid="old"))
    assert cache.get("team", "a") == make("a", 9, uid="new")


def test_cache_list_drops_what_vanished_and_reports_it() -> None:
    cache = Cache()
    cache.replace([make("a", 1), make("b", 2)], "3")
    changed = cache.replace([make("a", 1), make("c", 5, uid="u3")], "6")
    assert [obj["metadata"]["name"] for obj in changed] == ["c", "b"]
    assert {obj["metadata"]["name"] for obj in cache.objects()} == {"a", "c"}
    assert cache.resource_version == "6"


def test_cache_list_keeps_an_object_that_was_written_after_it() -> None:
    cache = Cache()
    cache.upsert(make("mine", 9))
    assert cache.replace([], "8") == []
    assert cache.get("team", "mine") is not None


def test_cache_list_reports_an_object_whose_event_was_lost_though_its_response_was_seen() -> None:
    cache = Cache()
    cache.replace([], "3")
    cache.upsert(make("a", 5))
    assert cache.replace([make("a", 5)], "6") == [make("a", 5)]


def test_cache_starts_afresh_when_a_backup_was_restored() -> None:
    cache = Cache()
    cache.replace([make("a", 100), make("b", 90)], "100")
    changed = cache.replace([make("b", 20)], "50")
    assert cache.objects() == [make("b", 20)]
    assert [obj["metadata"]["name"] for obj in changed] == ["b", "a"]
    assert cache.upsert(make("c", 51))


def test_cache_forgets_managed_fields() -> None:
    cache = Cache()
    obj = make("a", 1)
    obj["metadata"]["managedFields"] = [{"manager": "someone"}]
    cache.upsert(obj)
    assert cache.get("team", "a") == make("a", 1)


def test_cache_finds_by_label_within_a_namespace() -> None:
    cache = Cache()
    cache.upsert(make("a", 1, run="r1"))
    elsewhere = make("a", 2, run="r1")
    elsewhere["metadata"]["namespace"] = "other"
    cache.upsert(elsewhere)
    assert cache.by_label("run", "r1", "other") == [elsewhere]
    assert len(cache.by_label("run", "r1")) == 2
    cache.upsert(make("a", 3, run="r2"))
    assert cache.by_label("run", "r1", "team") == []
    assert cache.by_label("run", "r2", "team") == [make("a", 3, run="r2")]


def test_cache_finds_by_an_index_of_its_own() -> None:
    cache = Cache({"uid": lambda obj: [obj["metadata"]["uid"]]})
    cache.upsert(make("a", 1, uid="x"))
    cache.upsert(make("b", 2, uid="x"))
    cache.remove(make("a", 1, uid="x"))
    assert cache.by_index("uid", "x") == [make("b", 2, uid="x")]
    with pytest.raises(KeyError):
        cache.by_index("colour", "red")


def test_cache_knows_objects_of_the_cluster_by_an_empty_namespace() -> None:
    cache = Cache()
    node = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}}
    cache.upsert(node)
    assert cache.get("", "n") is node


class CacheAgainstServer(RuleBasedStateMachine):
    """A server's history, its watch, its lists and responses that arrive when they like."""

    names = st.sampled_from("abc")
    responses: Bundle[Object] = Bundle("responses")

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()
        self.version = 0
        self.stored: dict[str, Object] = {}
        self.history: list[tuple[int, str, Object]] = []
        self.seen: dict[str, int] = {}

    def _record(self, kind: str, obj: Object) -> None:
        self.history.append((self.version, kind, obj))

    @rule(name=names, label=st.sampled_from("xy"), target=responses)
    def write(self, name: str, label: str) -> Object:
        self.version += 1
        old = self.stored.get(name)
        uid = old["metadata"]["uid"] if old else f"{name}{self.version}"
        self.stored[name] = make(name, self.version, uid=uid, label=label)
        self._record("MODIFIED", self.stored[name])
        return self.stored[name]

    @rule(name=names)
    def delete(self, name: str) -> None:
        old = self.stored.pop(name, None)
        if old is not None:
            self.version += 1
            self._record("DELETED", make(name, self.version, uid=old["metadata"]["uid"]))

    @rule(response=responses)
    def receive_response(self, response: Object) -> None:
        self.cache.upsert(response)

    @rule(count=st.integers(1, 3))
    def receive_events(self, count: int) -> None:
        shown = int(self.cache.resource_version)
        for version, kind, obj in [e for e in self.history if e[0] > shown][:count]:
            (self.cache.remove if kind == "DELETED" else self.cache.upsert)(obj)
            self.cache.advance(str(version))

    @rule()
    def receive_list(self) -> None:
        self.cache.replace(list(self.stored.values()), str(self.version))
        assert self._held() == self.stored

    @rule()
    def catch_up(self) -> None:
        self.receive_events(len(self.history))
        assert self._held() == self.stored

    @invariant()
    def never_back_in_time(self) -> None:
        for name, obj in self._held().items():
            version = int(obj["metadata"]["resourceVersion"])
            assert version >= self.seen.get(name, 0)
            self.seen[name] = version

    @invariant()
    def indexes_agree(self) -> None:
        for label in "xy":
            expected = [
                o for o in self.cache.objects() if o["metadata"]["labels"]["label"] == label
            ]
            found = self.cache.by_label("label", label)
            assert sorted(map(id, found)) == sorted(map(id, expected))

    def _held(self) -> dict[str, Object]:
        return {obj["metadata"]["name"]: obj for obj in self.cache.objects()}


CacheAgainstServer.TestCase.settings = settings(stateful_step_count=30)
TestCacheAgainstServer = CacheAgainstServer.TestCase


@given(st.lists(st.integers(1, 20), min_size=1))
def test_cache_ends_with_the_newest_version_in_any_order(versions: list[int]) -> None:
    cache = Cache()
    for version in versions:
        cache.upsert(make("a", version))
    assert cache.objects() == [make("a", max(versions))]
