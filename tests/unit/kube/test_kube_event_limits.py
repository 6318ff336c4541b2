"""How many Events get through."""

from labfunctions_operator.kube.event_limits import (
    OBJECT_BURST,
    OBJECT_PER_SECOND,
    OBJECTS_KNOWN,
    REPEAT_SECONDS,
    TOTAL_BURST,
    TOTAL_PER_SECOND,
    EventLimits,
)
from labfunctions_operator.reconcile.plan import Event


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def event(message: object = "why", reason: str = "StartError") -> Event:
    return Event(type="Warning", reason=reason, message=str(message))


def test_the_same_about_the_same_object_counts_up_for_a_while() -> None:
    time = Time()
    limits = EventLimits(time)
    assert limits.decide("a", event()) == "Recorded"
    assert limits.decide("a", event()) == "Recorded", "the first one failed"
    limits.recorded("a", event(), "a.1")
    for count in (2, 3):
        assert limits.decide("a", event()) == "Repeated"
        assert limits.repeated("a", event()) == ("a.1", count)
    assert limits.decide("b", event()) == "Recorded"
    assert limits.decide("a", event("other")) == "Recorded"
    assert limits.decide("a", event(reason="PodRefused")) == "Recorded"
    time.now += REPEAT_SECONDS
    assert limits.decide("a", event()) == "Recorded"


def test_an_object_has_a_burst_and_then_earns_one_at_a_time() -> None:
    time = Time()
    limits = EventLimits(time)
    first = [limits.decide("a", event(n)) for n in range(OBJECT_BURST + 3)]
    assert first == ["Recorded"] * OBJECT_BURST + ["Limited"] * 3
    assert limits.decide("b", event()) == "Recorded"
    limits.recorded("a", event(0), "a.0")
    assert limits.decide("a", event(0)) == "Limited", "a repeat is a write, too"
    time.now += 1 / OBJECT_PER_SECOND
    assert [limits.decide("a", event(f"later {n}")) for n in range(2)] == ["Recorded", "Limited"]


def test_all_objects_share_a_limit() -> None:
    time = Time()
    limits = EventLimits(time)
    for n in range(TOTAL_BURST):
        assert limits.decide(f"uid {n}", event()) == "Recorded"
    assert limits.decide("another", event()) == "Limited"
    time.now += 1 / TOTAL_PER_SECOND
    # What was held back has not been told.
    assert limits.decide("another", event()) == "Recorded"


def test_only_so_many_objects_are_remembered() -> None:
    time = Time()
    limits = EventLimits(time)
    for n in range(2 * OBJECTS_KNOWN):
        time.now += 1
        limits.decide(f"uid {n}", event())
        limits.recorded(f"uid {n}", event(), "name")
    assert len(limits._objects) == OBJECTS_KNOWN
    assert limits.decide(f"uid {2 * OBJECTS_KNOWN - 1}", event()) == "Repeated"
