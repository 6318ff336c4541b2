"""A notifier whose messages go to servers in memory, and statuses that are written at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from objects import at, make_run, stamp

from labfunctions_operator.api.notification import MissedDelivery, Target
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.dispatch import Letter
from labfunctions_operator.controllers.notifier import Notifier
from labfunctions_operator.reconcile.notify import Outcome, is_pending, with_outcomes
from labfunctions_operator.reconcile.plan import Key

Act = Callable[[str], Awaitable[None]]


def hook(name: str) -> dict[str, Any]:
    """A target on a host of its own, or named as host/path."""
    host, _, path = name.rpartition("/")
    url = f"https://{host or path + '.example.com'}/{path}"
    return {"webhook": {"url": url, "format": "Json"}}


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Servers:
    """Stands where messages are written and sent; each server does what it is told."""

    acts: dict[str, Act] = field(default_factory=dict)
    sent: list[tuple[float, str, str, int]] = field(default_factory=list)
    tries: list[tuple[float, str]] = field(default_factory=list)
    only: list[Sequence[str]] = field(default_factory=list)

    async def write(self, run: Run, event: str, runs: Sequence[str], count: int) -> Any:
        return run.metadata.name, count

    async def write_missed(self, workflow: Workflow, delivery: MissedDelivery, own: Any) -> Any:
        return delivery.due, delivery.count

    async def address(
        self, namespace: str, target: Target, message: Any, only: Sequence[str]
    ) -> Letter:
        assert target.webhook
        assert target.webhook.url
        self.only.append(only)
        host, name = target.webhook.url.removeprefix("https://").split("/")
        return Letter(host=host, send=lambda: self.send(name, message))

    async def send(self, name: str, message: Any) -> None:
        self.tries.append((loop_time(), name))
        if act := self.acts.get(name):
            await act(name)
        self.sent.append((loop_time(), name, *message))

    def names(self) -> list[str]:
        return [name for _, name, *_ in self.sent]


def fails(*errors: Exception) -> Act:
    remaining = list(errors)

    async def act(_: str) -> None:
        if remaining:
            raise remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return act


def fails_once(error: Exception) -> Act:
    remaining = [error]

    async def act(_: str) -> None:
        if remaining:
            raise remaining.pop()

    return act


async def hangs(_: str) -> None:
    await asyncio.sleep(1e9)


class Bench:
    """A notifier with the Runs' statuses, written as the reconciler writes them."""

    def __init__(self, **acts: Act) -> None:
        self.servers = Servers(acts)
        self.runs: dict[Key, Run] = {}
        self.messages: Counter[tuple[str, ...]] = Counter()
        self.writes: list[tuple[float, Key]] = []
        self.notifier = self.start()

    def start(self) -> Notifier:
        self.notifier = Notifier(
            self.servers,  # type: ignore[arg-type]
            self.reconcile,
            lambda: at(loop_time()),
            measured=lambda *labels: self.messages.update([labels]),
            clock=loop_time,
            random=lambda: 0.0,
        )
        return self.notifier

    def crash(self) -> None:
        """Leave nothing of the process but what it wrote."""
        for lane in self.notifier._post._lanes.values():
            assert lane.task
            lane.task.cancel()
        self.start()

    def reconcile(self, key: Key) -> None:
        run = self.runs[key]
        outcomes: Mapping[int, Outcome] = {}
        if is_pending(run):
            outcomes = self.notifier.offer(key, run)
        else:
            self.notifier.forget(key)
        plan = with_outcomes(run, outcomes, at(loop_time()))
        if plan.status is not None:
            self.writes.append((loop_time(), key))
            self.runs[key] = run.but(status=type(run.status).model_validate(plan.status))
            self.reconcile(key)

    def end(
        self,
        name: str,
        *targets: str,
        group: int = 0,
        reason: str = "NotebookError",
        started: bool = True,
    ) -> Key:
        """A Run ends, and the messages about it are due."""
        held = {"notBefore": stamp(loop_time() + group)} if group else {}
        deliveries = [{"event": "Failed", "target": hook(t), **held} for t in targets]
        snapshot = {"project": "demo", "workflow": "report", "image": "i"}
        run = make_run(
            name,
            status={
                "phase": "Failed",
                "completionTime": stamp(loop_time()),
                "failure": {"reason": reason},
                "snapshot": snapshot if started else None,
                "notifications": deliveries,
            },
        )
        key = Key("Run", "team", name)
        self.runs[key] = run
        self.reconcile(key)
        return key

    def states(self, key: Key) -> list[str]:
        return [d.state for d in self.runs[key].status.notifications or ()]

    def message(self, key: Key) -> str | None:
        return (self.runs[key].status.notifications or [])[0].message
