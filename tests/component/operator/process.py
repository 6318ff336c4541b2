"""The operator's process: its configuration, its identity and its life."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
import yaml

from dev.cluster.binaries import executable
from dev.cluster.command import run
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import S3Server, free_port

from ..harness import WRITES
from .api import until
from .inbox import Inbox
from .scrape import Scrape, scrape

ROOT = Path(__file__).parents[3]
NAMESPACE = "labfunctions-system"
ACCOUNT = "labfunctions-operator"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
RIGHTS = (
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "PriorityClass",
)
BUCKET = "labfunctions"
REPORT_KEY = b"a key that only the operator has"
STOP_SECONDS = 15


def grant_rights(kubectl: Kubectl, *values: str) -> None:
    """Give the operator the identity and the rights that the chart gives it, and no others.

    Args:
        kubectl: Of the cluster.
        values: Of the chart, as `key=value`.
    """
    chart = ROOT / "helm" / "labfunctions"
    helm = str(executable("helm"))
    sets = [argument for value in values for argument in ("--set", value)]
    rendered = run([helm, "template", "labfunctions", str(chart), "--namespace", NAMESPACE, *sets])
    manifests = [m for m in yaml.safe_load_all(rendered) if m and m["kind"] in RIGHTS]
    if not kubectl.succeeds("get", "namespace", NAMESPACE):
        kubectl.run("create", "namespace", NAMESPACE)
    kubectl.apply(yaml.safe_dump_all(manifests))


def write_kubeconfig(control: ControlPlane, kubectl: Kubectl, path: Path) -> None:
    """Write a kubeconfig that knows the operator's ServiceAccount alone."""
    token = kubectl.run("create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=2h").strip()
    admin = yaml.safe_load(control.kubeconfig.read_text())
    user = admin["contexts"][0]["context"]["user"]
    admin["users"] = [{"name": user, "user": {"token": token}}]
    path.write_text(yaml.safe_dump(admin))


def write_config(
    folder: Path, store: S3Server, reports_port: int, inbox: Inbox, **more: Any
) -> Path:
    """Write the operator's configuration with all that it names."""
    tls, credentials = folder / "tls", folder / "store"
    for path, content in {
        tls / "ca.crt": "the builder's authority",
        tls / "tls.crt": "a client's certificate",
        tls / "tls.key": "its key",
        credentials / "accessKeyID": store.access_key,
        credentials / "secretAccessKey": store.secret_key,
        folder / "key": REPORT_KEY.decode(),
    }.items():
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
    config: dict[str, Any] = {
        "namespace": NAMESPACE,
        "images": {"courier": "labfunctions/courier:test", "builder": "labfunctions/builder:test"},
        "builder": {
            "mode": "shared",
            "address": "tcp://labfunctions-buildkitd:1234",
            "tlsDir": str(tls),
        },
        "registry": {
            "pushRepository": "registry.test:5000",
            "pullRepository": "localhost:30500",
            "insecure": True,
        },
        "store": {
            "endpoint": store.url,
            "bucket": BUCKET,
            "credentialsDir": str(credentials),
        },
        "reports": {
            "url": f"http://127.0.0.1:{reports_port}",
            "keyFile": str(folder / "key"),
            "port": reports_port,
        },
        "metrics": {"port": free_port()},
        "notifications": {
            "allowedHosts": {"*": ["*", inbox.host, inbox.mail_host]},
            "slackUrl": f"{inbox.url}/slack/api/",
        },
        "cacheDir": str(folder / "cache"),
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


class OperatorProcess:
    """`python -m labfunctions_operator`, as often as a test wants it."""

    def __init__(
        self, config: Path, kubeconfig: Path, log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.log = log
        self.config = config
        self.kubeconfig = kubeconfig
        self._env = env or {}
        self._liveness = f"http://127.0.0.1:{free_port()}/healthz"
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start it unless it runs, and wait until it has listed everything."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, "-m", "labfunctions_operator"]
        options = ["--config", str(self.config), "--liveness", self._liveness]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig), **self._env},
                stdout=log,
                stderr=log,
            )
        until(self._is_healthy, "the operator is healthy", seconds=90)

    def kill(self) -> None:
        """End it as a node's failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.ensure()

    @property
    def metrics_address(self) -> str:
        port = yaml.safe_load(self.config.read_text())["metrics"]["port"]
        return f"127.0.0.1:{port}"

    def scrape(self) -> Scrape:
        """Read its metrics."""
        return scrape(f"http://{self.metrics_address}/metrics")

    def _end(self, sign: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(sign)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the operator does not end within {STOP_SECONDS} s") from None
        finally:
            self._process = None

    def _is_healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the operator ended: {self.log.read_text()[-2000:]}"
        try:
            with urllib3.PoolManager(retries=False, timeout=5) as pool:
                answer = pool.request("GET", self._liveness)
                return answer.status == 200 and answer.json().get("started") is True
        except urllib3.exceptions.HTTPError:
            return False


@dataclass(frozen=True)
class Request:
    """One request that the operator made."""

    verb: str
    target: str
    namespace: str
    name: str
    code: int
    agent: str

    def __str__(self) -> str:
        return f"{self.verb} {self.target}"


class Footprint:
    """What the operator asked of the API server since this was made, by whatever client."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size if log.exists() else 0
        # A request is logged after its effect is seen, so the place in the log is not enough.
        self._since = datetime.now(UTC)

    def requests(self) -> list[Request]:
        # The log is written once the response is out.
        time.sleep(0.3)
        with self._log.open() as log:
            log.seek(self._start)
            entries = [json.loads(line) for line in log if USER in line and line.endswith("\n")]
        return [
            _request(e)
            for e in entries
            if e["user"]["username"] == USER
            and datetime.fromisoformat(e["requestReceivedTimestamp"]) >= self._since
        ]

    def writes(self, namespace: str) -> list[str]:
        """Return the writes to a namespace as `verb resource[/subresource]`, oldest first."""
        found = [r for r in self.requests() if r.verb in WRITES and r.namespace == namespace]
        assert {r.agent for r in found} <= {ACCOUNT}, "another client than ours writes"
        return [str(r) for r in found]

    def count(self, namespace: str, what: str) -> int:
        return self.writes(namespace).count(what)


def _request(entry: dict[str, Any]) -> Request:
    target = entry.get("objectRef") or {}
    parts = (target.get("resource"), target.get("subresource"))
    return Request(
        verb=entry["verb"],
        target="/".join(filter(None, parts)) or entry["requestURI"],
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=entry["responseStatus"]["code"],
        agent=entry.get("userAgent", ""),
    )
