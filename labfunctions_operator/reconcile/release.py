"""How nodes go that no autoscaler looks after: cordon, look again, drain, delete.

Each step is seen on the node itself, so that a restart goes on where the last one stopped, and a
Run that comes meanwhile gets the node back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api import labels
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.demand import NodeGroupObserved, Object, is_work
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.pods import is_over

# A scheduler may still bind what it decided on before it saw the cordon.
RECHECK = timedelta(seconds=10)
_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, kw_only=True)
class Release:
    """The next steps towards fewer nodes.

    Attributes:
        apply: Cordons, and cordons taken back.
        evict: Pods that have to leave first.
        delete: Nodes that are empty.
        look_again: When a cordoned node is looked at again.
    """

    apply: tuple[Manifest, ...] = ()
    evict: tuple[Ref, ...] = ()
    delete: tuple[Ref, ...] = ()
    look_again: datetime | None = None


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
    evict: list[Ref] = []
    delete: list[Ref] = []
    waits: list[datetime] = []
    for node in others[missing:]:
        since = cordoned_at(node)
        pods = seen.drained.get(_name(node))
        if since is None or pods is None or since + RECHECK > now:
            waits.append((since or now) + RECHECK)
            continue
        left = [pod for pod in pods if _must_leave(pod)]
        if any(is_work(pod) for pod in left):
            apply.append(_uncordoned(node))
        elif left:
            asked = [p["metadata"] for p in left if not p["metadata"].get("deletionTimestamp")]
            evict += [Ref.to("v1", "Pod", metadata) for metadata in asked]
            waits.append(now + RECHECK)
        elif not node["metadata"].get("deletionTimestamp"):
            delete.append(Ref.to("v1", "Node", node["metadata"]))
    return Release(
        apply=tuple(apply),
        evict=tuple(evict),
        delete=tuple(delete),
        look_again=min(waits, default=None),
    )


def give_back(nodes: Iterable[Object]) -> tuple[Manifest, ...]:
    """Let pods onto the nodes again that the operator cordoned."""
    return tuple(_uncordoned(node) for node in nodes if cordoned_at(node) is not None)


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
    manifest = _uncordoned(node)
    note = {labels.RELEASING_ANNOTATION: rfc3339(now)}
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "annotations": note},
        "spec": {"unschedulable": True},
    }


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


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name
