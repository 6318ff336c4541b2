"""What most tests do: create, wait for a state, and look at what came of it."""

import json
from dataclasses import dataclass
from typing import Any

from .api import Api, Object, condition, until
from .kubelet import SUCCEEDED, Kubelet
from .process import Footprint, OperatorProcess


@dataclass(frozen=True)
class Bench:
    """One namespace of a cluster in which the operator runs."""

    api: Api
    kubelet: Kubelet
    operator: OperatorProcess
    footprint: Footprint
    namespace: str

    def create(self, *manifests: Object) -> None:
        for manifest in manifests:
            self.api.create(manifest)

    def get(self, kind: str, name: str) -> Object:
        obj = self.api.get(kind, self.namespace, name)
        assert obj is not None, f"{kind} {name} does not exist"
        return obj

    def patch(self, kind: str, name: str, **spec: Any) -> None:
        self.api.patch(kind, self.namespace, name, {"spec": spec})

    def jobs(self, **labels: str) -> list[Object]:
        selector = ",".join(f"labfunctions.io/{k}={v}" for k, v in labels.items())
        return self.api.list("Job", self.namespace, selector)

    def builds(self) -> list[Object]:
        return self.api.list("Job", self.namespace, "app.kubernetes.io/component=build")

    def pod(self, run: str, **options: Any) -> Object:
        """Wait for the pod of an attempt that has not started."""
        return self.kubelet.pod(self.namespace, run=run, **options)

    def pod_spec(self, run: str) -> Object:
        """Return what the pod of a Run was made from."""
        [job] = self.jobs(run=run)
        spec: Object = job["spec"]["template"]["spec"]
        return spec

    def build_pod(self, project: str = "wine", **options: Any) -> Object:
        """Wait for the pod of a build that has not started."""
        return self.kubelet.pod(self.namespace, project=project, runtime="default", **options)

    def await_reason(
        self, kind: str, name: str, reason: str, *, type: str = "", seconds: float = 60
    ) -> Object:
        """Wait for the summary of an object, or another condition, to give a reason."""
        type = type or _summary(kind)
        last: Object = {}

        def reached() -> Object | None:
            nonlocal last
            obj = self.get(kind, name)
            last = condition(obj, type)
            return obj if last.get("reason") == reason else None

        try:
            return until(reached, reason, seconds=seconds)
        except AssertionError:
            raise AssertionError(f"{kind} {name} is not {reason} but {last}") from None

    def await_status(self, kind: str, name: str) -> None:
        """Wait for the first words of the operator about an object."""
        until(lambda: self.get(kind, name).get("status"), f"{kind} {name} has a status")

    def message(self, kind: str, name: str, type: str = "") -> str:
        type = type or _summary(kind)
        return str(condition(self.get(kind, name), type).get("message", ""))

    def complete(self, run: str) -> Object:
        """Let a Run's notebook start and succeed."""
        pod = self.pod(run)
        self.kubelet.run(pod)
        self.await_reason("Run", run, "Running")
        self.kubelet.finish(pod, SUCCEEDED)
        return self.await_reason("Run", run, "Succeeded")

    def build(self, digit: str = "a", project: str = "wine") -> str:
        """Let the build that waits succeed, and wait until the Project is ready with its image."""
        digest = f"sha256:{digit * 64}"
        pod = self.build_pod(project)
        self.kubelet.finish_build(pod, {"digest": digest})
        image = f"localhost:30500/{self.namespace}/{project}@{digest}"

        def ready() -> bool:
            found = self.get("Project", project)
            [runtime] = found["status"]["runtimes"]
            is_ready: bool = condition(found, "Ready")["status"] == "True"
            return is_ready and runtime.get("image") == image

        until(ready, f"Project {project} has image {image}")
        return image


def _summary(kind: str) -> str:
    return "Succeeded" if kind in ("Run", "Backfill") else "Ready"


def courier_config(job: Object) -> Object:
    """Return what the courier of a Run's Job is told."""
    [courier] = job["spec"]["template"]["spec"]["initContainers"]
    config: Object = json.loads(courier["env"][0]["value"])
    return config
