"""How nodes go that no autoscaler looks after: cordon, look again, drain, delete.

Each step is seen on the node itself, so that a restart goes on where the last one stopped, and a
Run that comes meanwhile gets the node back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api import labels
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.demand import NodeGroupObserved, Object, Refusal, is_work
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.pods import is_over

# A scheduler may still bind what it decided on before it saw the cordon.
RECHECK = timedelta(seconds=10)
# A pod that may not leave is asked less and less often.
LAST_DELAY = timedelta(minutes=5)
# Refusals in a row that are no longer some seconds in which a replica starts.
REFUSALS_IN_A_ROW = 3
# A drain that takes longer is spoken of.
SLOW = timedelta(minutes=5)
# Until a node is tried again that something keeps.
KEPT_FOR = timedelta(hours=1)
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, kw_only=True)
class Release:
    """The next steps towards fewer nodes.

    Attributes:
        apply: Cordons, and cordons taken back.
        evict: Pods that have to leave first.
        delete: Nodes that are empty.
        look_again: When a cordoned node is looked at again, or one that is kept.
        says: What keeps nodes from going, for a person.
        is_blocked: Whether pods have refused to leave for long.
    """

    apply: tuple[Manifest, ...] = ()
    evict: tuple[Ref, ...] = ()
    delete: tuple[Ref, ...] = ()
    look_again: datetime | None = None
    says: tuple[str, ...] = ()
    is_blocked: bool = False


def release_nodes(
    seen: NodeGroupObserved, chosen: Sequence[str], *, missing: int, now: datetime
) -> Release:
    """Bring nodes nearer to their end, or back.

    Args:
        seen: What exists.
        chosen: Nodes to begin with.
        missing: How many nodes the group lacks: so many that were to go are kept.
        now: The time.
    """
    leaving = [n for n in seen.nodes if cordoned_at(n) is not None]
    busy = {p["spec"].get("nodeName") for p in seen.pods if is_work(p) and not is_over(p)}
    back = [n for n in leaving if _name(n) in busy]
    others = [n for n in leaving if n not in back]
    back += others[:missing]
    apply = [_uncordoned(n) for n in back]
    apply += [_cordoned(n, now) for n in seen.nodes if _name(n) in chosen and n not in leaving]
    steps = [_next_step(node, seen, now) for node in others[missing:]]
    kept = held_nodes(seen.nodes, now)
    waits = [step.look_again for step in steps] + [until for until, _ in kept.values()]
    return Release(
        apply=(*apply, *(manifest for step in steps for manifest in step.apply)),
        evict=tuple(ref for step in steps for ref in step.evict),
        delete=tuple(ref for step in steps for ref in step.delete),
        look_again=min((w for w in waits if w is not None), default=None),
        says=(
            *(text for step in steps for text in step.says),
            *(_stays(name, pod) for name, (_, pod) in sorted(kept.items())),
        ),
        is_blocked=any(step.is_blocked for step in steps),
    )


def _next_step(node: Object, seen: NodeGroupObserved, now: datetime) -> Release:
    """Return the next step for one cordoned node."""
    since, pods = cordoned_at(node), seen.drained.get(_name(node))
    if since is None or since > now - RECHECK:
        return Release(look_again=min(since or now, now) + RECHECK)
    if pods is None:
        return Release()  # nobody may look what is left there
    left = [pod for pod in pods if _must_leave(pod)]
    if any(is_work(pod) for pod in left):
        return Release(apply=(_uncordoned(node),))
    if bare := sorted(_full_name(pod) for pod in left if _is_bare(pod)):
        return Release(apply=(_kept(node, bare[0], now),), look_again=now + KEPT_FOR)
    if left:
        return _drain(node, since, left, seen.refusals, now)
    if node["metadata"].get("deletionTimestamp"):
        return Release()
    return Release(delete=(Ref.to("v1", "Node", node["metadata"]),))


def _drain(
    node: Object,
    since: datetime,
    left: Sequence[Object],
    refusals: Mapping[str, Refusal],
    now: datetime,
) -> Release:
    """Ask the pods of a node to leave, each of those that may not when it is due.

    One that was asked goes in its own time, or never if nobody is there to stop it.
    """
    here = {p["metadata"]["uid"]: p for p in left if not p["metadata"].get("deletionTimestamp")}
    refused = {uid: refusals[uid] for uid in here if uid in refusals}
    due = {uid: r.at + _delay(r.count) for uid, r in refused.items()}
    says = sorted(
        f"{_name(node)} cannot be drained, pod {_full_name(here[uid])} may not leave: {refusal.why}"
        for uid, refusal in refused.items()
    )
    if not says and since + SLOW <= now:
        says = [f"{_name(node)} is drained and waits for pod {min(map(_full_name, left))}"]
    patience = min(LAST_DELAY, max(RECHECK, (now - since) / 10))
    return Release(
        evict=tuple(
            Ref.to("v1", "Pod", pod["metadata"])
            for uid, pod in here.items()
            if due.get(uid, now) <= now
        ),
        look_again=min((t for t in due.values() if t > now), default=now + patience),
        says=tuple(says[:1]),
        is_blocked=any(refusal.count >= REFUSALS_IN_A_ROW for refusal in refused.values()),
    )


def _delay(count: int) -> timedelta:
    return min(LAST_DELAY, RECHECK * 2.0 ** min(count - 1, 10))


def held_nodes(nodes: Iterable[Object], now: datetime) -> dict[str, tuple[datetime, str]]:
    """Return until when nodes are kept for the sake of which pod, by their names."""
    held = {}
    for node in nodes:
        note = (node["metadata"].get("annotations") or {}).get(labels.KEPT_ANNOTATION, "")
        when, _, pod = note.partition(" ")
        try:
            until = parse_time(when) + KEPT_FOR
        except (ValueError, OverflowError):
            continue
        if until > now:
            held[_name(node)] = until, pod
    return held


def give_back(nodes: Iterable[Object]) -> tuple[Manifest, ...]:
    """Let pods onto the nodes again that the operator cordoned, and take its notes away."""
    return tuple(_uncordoned(node) for node in nodes if cordoned_at(node) or _is_kept(node))


def cordoned_at(node: Object) -> datetime | None:
    """Return when the operator cordoned a node, if it did."""
    since = (node["metadata"].get("annotations") or {}).get(labels.RELEASING_ANNOTATION)
    if not since or not node.get("spec", {}).get("unschedulable"):
        return None
    try:
        return parse_time(since)
    except ValueError:
        return None


def _cordoned(node: Object, now: datetime) -> Manifest:
    manifest = _noted(node, labels.RELEASING_ANNOTATION, rfc3339(now))
    return {**manifest, "spec": {"unschedulable": True}}


def _kept(node: Object, pod: str, now: datetime) -> Manifest:
    """Let pods onto a node again, and note what keeps it."""
    return _noted(node, labels.KEPT_ANNOTATION, f"{rfc3339(now)} {pod}")


def _noted(node: Object, annotation: str, text: str) -> Manifest:
    manifest = _uncordoned(node)
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {annotation: text}}}


def _uncordoned(node: Object) -> Manifest:
    """Give up the field; the uid keeps this from making a Node that is gone meanwhile."""
    metadata = node["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
    }


def _must_leave(pod: Object) -> bool:
    metadata = pod["metadata"]
    owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or ()}
    is_mirror = _MIRROR in (metadata.get("annotations") or {})
    return not is_over(pod) and not is_mirror and "DaemonSet" not in owners


def _stays(node: str, pod: str) -> str:
    return f"{node} stays: pod {pod} has no controller and would be lost"


def _is_kept(node: Object) -> bool:
    return labels.KEPT_ANNOTATION in (node["metadata"].get("annotations") or {})


def _is_bare(pod: Object) -> bool:
    """Whether nobody would make a pod anew elsewhere, nor has asked it to go."""
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or ()
    return not (metadata.get("deletionTimestamp") or any(o.get("controller") for o in owners))


def _full_name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name
