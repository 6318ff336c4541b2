"""The kinds that the operator reads or writes, and where the API server serves them."""

from typing import NamedTuple

from labfunctions_operator.errors import InvalidSpec

LABFUNCTIONS = "labfunctions.io/v1alpha1"


class Resource(NamedTuple):
    """How one kind is addressed."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(
        self, *, namespace: str | None = None, name: str | None = None, subresource: str = ""
    ) -> str:
        """Return the path of one object, of a namespace's objects, or of all objects."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        path = root + self.api_version
        if self.namespaced and namespace:
            path += f"/namespaces/{_segment(namespace)}"
        path += f"/{self.plural}"
        if name is not None:
            path += f"/{_segment(name)}"
        return f"{path}/{subresource}" if subresource else path


PROJECTS = Resource(LABFUNCTIONS, "Project", "projects")
WORKFLOWS = Resource(LABFUNCTIONS, "Workflow", "workflows")
BACKFILLS = Resource(LABFUNCTIONS, "Backfill", "backfills")
RUNS = Resource(LABFUNCTIONS, "Run", "runs")
JOBS = Resource("batch/v1", "Job", "jobs")
CRON_JOBS = Resource("batch/v1", "CronJob", "cronjobs")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SECRETS = Resource("v1", "Secret", "secrets")
NODE_GROUPS = Resource(LABFUNCTIONS, "NodeGroup", "nodegroups", namespaced=False)
POD_TEMPLATES = Resource("v1", "PodTemplate", "podtemplates")
CAPACITY_BUFFERS = Resource("autoscaling.x-k8s.io/v1beta1", "CapacityBuffer", "capacitybuffers")
EVENTS = Resource("v1", "Event", "events")
NODES = Resource("v1", "Node", "nodes", namespaced=False)
MACHINE_GROUPS = tuple(
    Resource(f"cluster.x-k8s.io/{version}", kind, f"{kind.lower()}s")
    for version in ("v1beta2", "v1beta1")
    for kind in ("MachineDeployment", "MachinePool", "MachineSet")
)

_BY_KIND = {
    (resource.api_version, resource.kind): resource
    for resource in (
        PROJECTS,
        WORKFLOWS,
        BACKFILLS,
        RUNS,
        JOBS,
        CRON_JOBS,
        PODS,
        CONFIG_MAPS,
        SECRETS,
        EVENTS,
        NODES,
        *MACHINE_GROUPS,
        NODE_GROUPS,
        POD_TEMPLATES,
        CAPACITY_BUFFERS,
    )
}


def find_resource(api_version: str, kind: str) -> Resource:
    """Return the resource of a kind; KeyError means that the table above lacks it."""
    return _BY_KIND[api_version, kind]


def _segment(name: str) -> str:
    """Refuse a name that would address something else, as users may name Secrets freely."""
    if name in ("", ".", "..") or any(c in "/%?#\\" or c.isspace() for c in name):
        raise InvalidSpec("metadata.name", f"{name!r} is not the name of an object")
    return name
