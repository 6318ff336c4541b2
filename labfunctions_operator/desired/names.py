"""Names of children, their owners and stored objects: the same input gives the same name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from labfunctions_operator.api.labels import API_VERSION
from labfunctions_operator.api.types import Metadata

FILES = {"notebook": "notebook.ipynb", "html": "notebook.html", "result": "result.json"}
"""What an attempt leaves in its folder of the store."""
SPEC_HASH = "labfunctions.io/spec-hash"
"""The annotation with a child's hash."""


def digest(*parts: Any) -> str:
    """Return the sha256 of a JSON value, as hex."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def spec_hash(manifest: Mapping[str, Any]) -> str:
    """Return a hash of a child, by which it is known to be applied."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def run_job_name(run: str, attempt: int, *, is_tick: bool = False) -> str:
    """Return the Job's name of one attempt of a Run.

    The first one of a tick's Run has the name that a CronJob would give it: whoever of the two
    creates it, a tick runs once, as a name exists once.
    """
    return run if is_tick and attempt == 1 else f"{run}-{attempt}"


def build_job_name(project: str, runtime: str, inputs_hash: str) -> str:
    """Return the Job's name of one build; a repeat is the same Job."""
    return f"build-{project}-{digest(runtime, inputs_hash)[:12]}"


def builder_secret_name(project: str) -> str:
    """Return the name of the Secret with the builder's client certificate."""
    return f"{project}-builder"


def attempt_prefix(
    *, namespace: str, project: str, workflow: str | None, run: str, uid: str, attempt: int
) -> str:
    """Return the folder of one attempt in the store."""
    folder = run_prefix(namespace=namespace, project=project, workflow=workflow, run=run, uid=uid)
    return f"{folder}/{attempt}"


def run_prefix(*, namespace: str, project: str, workflow: str | None, run: str, uid: str) -> str:
    """Return the folder of one Run in the store."""
    return f"{namespace}/{project}/{workflow or 'adhoc'}/{run_folder(run, uid)}"


def run_folder(run: str, uid: str) -> str:
    """Return the last part of a Run's folder.

    The uid keeps a second Run of the same name from overwriting the first one's results.
    """
    return f"{run}-{uid[:8]}"


def env_literal(value: str) -> str:
    """Escape a container's env value: Kubernetes expands `$(NAME)` in it."""
    return value.replace("$", "$$")


def owner_reference(kind: str, owner: Metadata) -> dict[str, Any]:
    """Name the owner of a child, which is deleted with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
    }
