"""The cluster as the tests see it, and a team's namespace in it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import yaml

from dev.cluster.errors import ClusterError
from dev.cluster.kubectl import Kubectl
from dev.gitserver.push import publish
from dev.install import CHART, NAMESPACE, RELEASE, helm, values_files
from dev.storage import open_store

from .objects import Object, condition

T = TypeVar("T")
Say = Callable[[str], None]

OPERATOR = f"system:serviceaccount:{NAMESPACE}:labfunctions-operator"
LABEL = "labfunctions.io/e2e"
FINAL = ("Succeeded", "Failed", "Cancelled")
SAY_AFTER = 5.0
SAY_EVERY = 20.0
LOG_LINES = 25


@dataclass(frozen=True)
class Cluster:
    """The whole of it, with an administrator's rights.

    Attributes:
        kubectl: Calls it.
        say: Prints a line at once, past pytest's capture.
    """

    kubectl: Kubectl
    say: Say

    def until(
        self,
        what: str,
        probe: Callable[[], T | None],
        *,
        seconds: float = 120,
        report: Callable[[], str] = str,
    ) -> T:
        """Call `probe` until it returns something true, and return that.

        Args:
            what: Is awaited, for a person.
            probe: May fail like kubectl while the API server is away.
            seconds: How long it may take.
            report: Describes what is there when it takes longer.
        """
        started = time.monotonic()
        say_at = started + SAY_AFTER
        problem = ""
        while True:
            try:
                if found := probe():
                    return found
                problem = ""
            except ClusterError as error:
                problem = f"\n{error}"
            now = time.monotonic()
            if now - started > seconds:
                raise AssertionError(f"not within {seconds:.0f} s: {what}{problem}\n{report()}")
            if now >= say_at:
                self.say(f"      waiting for {what} ({now - started:.0f} s)")
                say_at = now + SAY_EVERY
            time.sleep(0.5)

    def operator_log(self, *options: str) -> list[str]:
        """Return what the operator said, without the requests that it answered."""
        words = ("logs", "deployment/labfunctions-operator", "-n", NAMESPACE, *options)
        lines = self.kubectl.run(*words).splitlines()
        return [line for line in lines if '"aiohttp.access"' not in line]

    def await_operator(self) -> None:
        """Wait until the only operator is ready."""
        self.await_rollout("labfunctions-operator")

    def await_rollout(self, deployment: str) -> None:
        """Wait until a Deployment of the operator's namespace runs as it should."""
        command = ("rollout", "status", f"deployment/{deployment}", "-n", NAMESPACE)
        self.until(
            f"{deployment} to be ready",
            lambda: self.kubectl.run(*command, "--timeout=15s") and True,
            seconds=120,
            report=lambda: self.kubectl.run("get", "pods", "-n", NAMESPACE),
        )

    def read_object(self, uri: str) -> bytes:
        """Return a stored object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with open_store(self.kubectl) as store:
            return store.get_object(Bucket=bucket, Key=key)["Body"].read()

    def etag(self, uri: str) -> str:
        """Return the entity tag of a stored object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with open_store(self.kubectl) as store:
            return store.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')


class Repository:
    """A repository of the cluster's git server; a working copy is in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def commit(self, files: Mapping[str, str | None], message: str = "Change") -> str:
        """Write files, or remove those given as None; publish and return the commit."""
        for path, text in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if text is not None:
                target.write_text(text)
        return publish(self.folder, self.name, message)


@dataclass(frozen=True)
class Team:
    """A namespace, and those who use it."""

    cluster: Cluster
    namespace: str

    def kubectl(self, *words: str, text: str | None = None) -> str:
        return self.cluster.kubectl.run("-n", self.namespace, *words, text=text)

    def apply(self, *manifests: Object) -> None:
        """`kubectl apply`, as a user would."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def find(self, kind: str, **labels: str) -> list[Object]:
        """List objects by their labels of ours."""
        selector = ",".join(f"labfunctions.io/{name}={value}" for name, value in labels.items())
        found = self.kubectl("get", kind, "--selector", selector, "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return items

    def builds(self, project: str = "lab") -> list[Object]:
        """Return the project's build Jobs, oldest first."""
        jobs = self.find("jobs", project=project)
        builds = [j for j in jobs if j["metadata"]["labels"].get("labfunctions.io/run") is None]
        return sorted(builds, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def pod(self, run: str) -> Object:
        """Return the only pod of a Run."""
        [pod] = self.find("pods", run=run)
        return pod

    def until(
        self, what: str, probe: Callable[[], T | None], *, seconds: float = 120, about: str = ""
    ) -> T:
        """Wait; on a timeout tell all about one object, such as `run/first`."""
        return self.cluster.until(what, probe, seconds=seconds, report=lambda: self.describe(about))

    def await_reason(
        self, kind: str, name: str, *reasons: str, seconds: float = 120, type: str = ""
    ) -> Object:
        """Wait until an object's main condition has one of the reasons, and return the object."""

        def look() -> Object | None:
            found = self.get(kind, name)
            current = condition(found, type)
            fresh = current.get("observedGeneration") == found["metadata"]["generation"]
            return found if fresh and current.get("reason") in reasons else None

        what = f"{kind} {name} to be {' or '.join(reasons)}"
        return self.until(what, look, seconds=seconds, about=f"{kind}/{name}")

    def await_end(self, run: str, *, seconds: float = 120) -> Object:
        """Wait until a Run has ended, however it did, and return it."""

        def look() -> Object | None:
            found = self.get("run", run)
            return found if (found.get("status") or {}).get("phase") in FINAL else None

        return self.until(f"Run {run} to end", look, seconds=seconds, about=f"run/{run}")

    def await_success(self, run: str, *, seconds: float = 120) -> Object:
        ended = self.await_end(run, seconds=seconds)
        assert ended["status"]["phase"] == "Succeeded", self.describe(f"run/{run}")
        return ended

    def await_recorded(self, run: str) -> None:
        """Wait until the record of a Run that has ended is in the store."""

        def stored() -> bool:
            return "record" in self.get("run", run)["status"]["outputs"]

        self.until(f"the record of Run {run}", stored, about=f"run/{run}", seconds=90)

    def await_image(
        self, commit: str, *, project: str = "lab", runtime: int = 0, seconds: float = 180
    ) -> Object:
        """Wait until a project has an image for a commit, and return the runtime's state."""

        def look() -> Object | None:
            status = self.get("project", project).get("status") or {}
            runtimes = status.get("runtimes") or []
            state: Object = runtimes[runtime] if len(runtimes) > runtime else {}
            settled = (status.get("source") or {}).get("commit") == commit
            return state if settled and state.get("phase") == "Ready" else None

        what = f"Project {project} to be ready at {commit[:12]}"
        return self.until(what, look, seconds=seconds, about=f"project/{project}")

    def await_cell(self, run: str, text: str) -> None:
        """Wait until a Run's notebook has printed something."""

        def has_printed() -> bool:
            return len(self.find("pods", run=run)) == 1 and text in self.log(run)

        self.until(f"Run {run} to print {text!r}", has_printed, about=f"run/{run}")

    def log(self, run: str, container: str = "notebook") -> str:
        name = self.pod(run)["metadata"]["name"]
        return self.kubectl("logs", name, "-c", container)

    def let_go(self, run: str) -> None:
        """Let a notebook that waits go on."""
        name = self.pod(run)["metadata"]["name"]
        self.kubectl("exec", name, "-c", "notebook", "--", "touch", "/tmp/go")

    def read_notebook(self, run: Object) -> Object:
        """Return the stored notebook of a Run that has ended."""
        found: Object = json.loads(self.cluster.read_object(run["status"]["outputs"]["notebook"]))
        return found

    def describe(self, about: str) -> str:
        """Return what helps to find out why something did not happen."""
        parts = []
        if about:
            parts.append(self._try("get", about, "-o", "yaml"))
        parts.append(self._try("get", "projects,workflows,runs,jobs,pods"))
        try:
            parts.append(
                "\n".join(self.cluster.operator_log(f"--tail={LOG_LINES * 4}")[-LOG_LINES:])
            )
        except ClusterError as error:
            parts.append(str(error))
        return "\n---\n".join(parts)

    def _try(self, *words: str) -> str:
        try:
            return self.kubectl(*words)
        except ClusterError as error:
            return str(error)


def upgrade(*values: str) -> None:
    """Install the release anew, with values on top of the usual ones."""
    words = [word for value in values for word in ("--set", value)]
    own = ("--create-namespace", "--force-conflicts")
    helm("upgrade", "--install", RELEASE, str(CHART), *own, *values_files(), *words)


def seconds_between(start: str, end: str) -> float:
    """Return the seconds between two times as Kubernetes writes them."""
    return (_time(end) - _time(start)).total_seconds()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
