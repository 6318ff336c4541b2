"""What kopf tells us: only that an object may have changed; nothing is decided here."""

from typing import Any

import kopf

from labfunctions_operator.api.labels import GROUP, VERSION
from labfunctions_operator.controllers.operator import Operator
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.settings import Settings

_KINDS = {
    "projects": "Project",
    "workflows": "Workflow",
    "backfills": "Backfill",
    "runs": "Run",
    "nodegroups": "NodeGroup",
}


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps kopf from writing its last-handled annotation onto users' objects.

    With it no create, update or resume handler would ever fire; we have none.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Take nothing of an object."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence:
        """Know nothing of before."""
        return kopf.BodyEssence({})

    def store(self, **_: Any) -> None:
        """Write nothing."""


def build_registry(settings: Settings) -> kopf.OperatorRegistry:
    """Register the handlers: start, stop, login, probe, and one event handler for each kind."""
    registry = kopf.OperatorRegistry()
    running: dict[str, Operator] = {}

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        operator = Operator(await KubeClient.connect(), own_settings)
        running["operator"] = operator
        await operator.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        if operator := running.pop("operator", None):
            await operator.stop()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.probe(registry=registry, id="started")
    async def started(**_: Any) -> bool:
        return "operator" in running

    async def observe(resource: kopf.Resource, event: kopf.RawEvent, **_: Any) -> None:
        running["operator"].observe(_KINDS[resource.plural], event["type"], event["object"])

    own_settings = settings
    for plural in _KINDS:
        kopf.on.event(GROUP, VERSION, plural, registry=registry, id="observe")(observe)
    return registry


def configure(settings: kopf.OperatorSettings) -> None:
    """Turn off what kopf would write or watch beyond events; see docs/architecture.md."""
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/operator"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 320
    settings.watching.inactivity_timeout = 70
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.posting.enabled = False
    settings.peering.standalone = True
