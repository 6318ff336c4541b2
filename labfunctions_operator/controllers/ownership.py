"""Whether a child that is found is the one that is wanted: by its owners, and a hash of itself."""

from typing import Any

from labfunctions_operator.desired.names import SPEC_HASH, spec_hash
from labfunctions_operator.errors import InvalidSpec, NameTaken
from labfunctions_operator.reconcile.plan import Manifest

Object = dict[str, Any]

# A tick of a Workflow is run once, whoever made the Run: an earlier Workflow of that name, too.
NAMED_BY_TICK = ("Run", "Workflow")
# Only the user can give another name where these find one in their place.
NAMED_BY_USER = frozenset({"CronJob"})


def with_hash(manifest: Manifest) -> Object:
    """Return the manifest with a hash of itself, by which it is known to be applied."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), SPEC_HASH: spec_hash(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def hash_of(obj: Object) -> str | None:
    """Return the hash that an object was applied with, if it was."""
    digest: str | None = (obj["metadata"].get("annotations") or {}).get(SPEC_HASH)
    return digest


def check_owner(wanted: Object, existing: Object) -> None:
    """Refuse to take over an object which another owner made, or an earlier one of our name.

    Raises:
        NameTaken: Until somebody deletes it.
        InvalidSpec: Only the user can give another name.
    """
    makers = wanted["metadata"].get("ownerReferences") or ()
    if NAMED_BY_TICK in {(wanted["kind"], maker["kind"]) for maker in makers}:
        return
    missing = _owners(wanted) - _owners(existing)
    if missing and wanted["kind"] in NAMED_BY_USER:
        raise InvalidSpec("metadata.name", f"a {wanted['kind']} of this name is somebody else's")
    if missing:
        metadata = existing["metadata"]
        raise NameTaken(
            f"{existing['kind']} {metadata.get('namespace', '')}/{metadata['name']} exists "
            "and belongs to another owner; delete it, or wait if that is under way"
        )


def _owners(obj: Object) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}
