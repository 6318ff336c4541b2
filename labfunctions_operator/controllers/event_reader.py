"""Reads Events beside the engine: one reading answers all who ask for the same at about one time.

The API server reads all Events of a namespace for each of these questions, and a worker that waits
for the answer is one less for everybody else.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from labfunctions_operator.controllers.world import Object
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.resources import EVENTS
from labfunctions_operator.reconcile.plan import Key

AT_ONCE = 2
# The same is asked again no sooner than this, and not before an answer is so old, in seconds.
PAUSE = 2.0
FRESH = 5.0
# An answer that nobody has asked for in so many seconds is of no use any more.
KEPT = 120.0


class Question(NamedTuple):
    """Events of a namespace, by a field selector."""

    namespace: str
    selector: str


@dataclass(frozen=True)
class _Answer:
    asked: float
    events: dict[str, list[Object]]

    def words(self, uid: str) -> list[tuple[str, str]]:
        return [(str(e.get("reason")), str(e.get("message"))) for e in self.events.get(uid, ())]


@dataclass
class _Asking:
    """A question under way; whom it concerns, and whether they have been answered before."""

    task: asyncio.Task[None]
    askers: dict[Key, tuple[str, bool]] = field(default_factory=dict)


class EventReader:
    """Knows what Events say of objects, some seconds late.

    Args:
        client: Asks.
        wake: Called with the key of who asked, once there is an answer or another one.
    """

    def __init__(self, client: KubeClient, wake: Callable[[Key], None]) -> None:
        self._client = client
        self._wake = wake
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answers: dict[Question, _Answer] = {}
        self._asking: dict[Question, _Asking] = {}

    def read(
        self, asker: Key, question: Question, uid: str, *, oldest: float = float("inf")
    ) -> list[Object] | None:
        """Return the Events about an object; None while none are known, and are being asked for.

        Args:
            asker: Who is told when the answer is there.
            question: Where these Events are among the answer.
            uid: Of the object.
            oldest: An answer that was asked for more seconds ago does not count.
        """
        answer = self._answers.get(question)
        age = asyncio.get_running_loop().time() - answer.asked if answer else float("inf")
        known = answer.events.get(uid, []) if answer and age <= oldest else None
        if known is None or age > FRESH:
            asking = self._asking.get(question) or self._ask(question)
            asking.askers[asker] = (uid, known is not None)
        return known

    async def close(self) -> None:
        """Ask no more."""
        tasks = [asking.task for asking in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, question: Question) -> _Asking:
        task = asyncio.create_task(self._answer(question), name=f"events {question}")
        asking = self._asking[question] = _Asking(task)
        return asking

    async def _answer(self, question: Question) -> None:
        loop = asyncio.get_running_loop()
        old = self._answers.get(question)
        try:
            if old:
                await asyncio.sleep(old.asked + PAUSE - loop.time())
            async with self._slots:
                new = _Answer(loop.time(), await self._list(question, old))
        finally:
            asking = self._asking.pop(question)
        self._answers = {q: a for q, a in self._answers.items() if a.asked > new.asked - KEPT}
        self._answers[question] = new
        for asker, (uid, was_answered) in asking.askers.items():
            if not (was_answered and old and old.words(uid) == new.words(uid)):
                self._wake(asker)

    async def _list(self, question: Question, old: _Answer | None) -> dict[str, list[Object]]:
        try:
            found = await self._client.list(
                EVENTS, namespace=question.namespace, field_selector=question.selector
            )
        except (Transient, Denied):
            return old.events if old else {}
        return _by_object(found.items)


def _by_object(events: Iterable[Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for event in events:
        uid = str((event.get("involvedObject") or {}).get("uid"))
        found.setdefault(uid, []).append(event)
    return found
