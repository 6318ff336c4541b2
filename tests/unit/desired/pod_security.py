"""The restricted profile of the Pod Security Standards, by its written rules."""

from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: Object) -> list[str]:
    """What the API server would refuse of a pod's spec in a restricted namespace."""
    found = list(_of_pod(pod))
    shared = pod.get("securityContext", {})
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            found += [f"{container['name']}: {v}" for v in _of_container(container, shared)]
    return found


def _of_pod(pod: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    security = pod.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls"
    yield from _of_either(security)


def _of_container(container: Object, pod: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    merged = {**pod, **own}
    yield from _of_either(own)
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("privileged"):
        yield "privileged"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities.drop"
    if not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if merged.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if merged.get("seccompProfile", {}).get("type") not in PROFILES:
        yield "seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"


def _of_either(security: Object) -> Iterator[str]:
    if security.get("runAsUser") == 0:
        yield "runAsUser"
    if security.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
        yield "appArmorProfile"
    if security.get("seLinuxOptions"):
        yield "seLinuxOptions"
    if security.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
