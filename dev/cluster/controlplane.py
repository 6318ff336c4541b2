"""etcd, API server, controller manager and scheduler: a cluster without nodes.

The local cluster adds a node to it; component tests add fake ones (`kwok.py`).
"""

import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.binaries import executable
from dev.cluster.kubectl import Kubectl
from dev.cluster.network import SERVICE_RANGE
from dev.cluster.pki import LOOPBACK, Identity, ensure_pki, write_kubeconfig
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.templates import write_config

COMPONENTS = ("kubernetes", "kubectl", "etcd")
POD_RANGE = "10.244.0.0/16"
API_SERVICE = "10.96.0.1"
# Stopped in this order, started in the reverse one.
PROCESSES = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
# The API server waits up to a minute for open watches to end; nothing is lost by not waiting.
APISERVER_GRACE = 2.0


@dataclass(frozen=True)
class Ports:
    """The ports that a control plane listens on."""

    etcd: int = 2379
    etcd_peer: int = 2380
    apiserver: int = 6443


def free_ports() -> Ports:
    """Return ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return Ports(*(one.getsockname()[1] for one in sockets))
    finally:
        for one in sockets:
            one.close()


class ControlPlane:
    """A control plane whose keys, data, logs and process records lie in one folder."""

    def __init__(
        self,
        root: Path,
        *,
        etcd_port: int = Ports.etcd,
        etcd_peer_port: int = Ports.etcd_peer,
        apiserver_port: int = Ports.apiserver,
        node_address: str | None = None,
        audit: bool = True,
    ) -> None:
        """Describe a control plane; nothing runs yet.

        Args:
            root: The folder that holds everything of it.
            etcd_port: Where etcd serves the API server.
            etcd_peer_port: Where etcd would meet its peers; it has none.
            apiserver_port: Where the API server listens.
            node_address: The address by which pods reach the API server; without one it
                listens on the loopback alone.
            audit: Whether every request is logged to `audit_log`.
        """
        self.root = root
        self.ports = Ports(etcd_port, etcd_peer_port, apiserver_port)
        self.node_address = node_address
        self.audit = audit
        self.pki = root / "pki"
        self.kubeconfig = root / "kubeconfig"
        self.audit_log = root / "logs" / "audit.log"
        self.server = f"https://{LOOPBACK}:{self.ports.apiserver}"
        self.supervisor = Supervisor(root)

    def start(self) -> None:
        """Start what does not run and wait until the API server is ready."""
        self._prepare()
        self.supervisor.ensure(self._etcd())
        self.supervisor.ensure(self._apiserver())
        self.supervisor.ensure(self._controller_manager())
        self.supervisor.ensure(self._scheduler())
        self._await_ready()

    def stop(self) -> None:
        """End everything; the data stays in `root`."""
        for name in PROCESSES:
            grace = APISERVER_GRACE if name == "kube-apiserver" else 5.0
            self.supervisor.stop(name, grace=grace)

    def restart_apiserver(self) -> None:
        """End the API server, start it again and wait until it is ready."""
        self.supervisor.stop("kube-apiserver", grace=APISERVER_GRACE)
        self.supervisor.ensure(self._apiserver())
        self._await_ready()

    def kubeconfig_for(self, identity: str) -> Path:
        """Write and return the kubeconfig of a component."""
        path = self.root / "kubeconfigs" / identity
        write_kubeconfig(path, pki=self.pki, identity=identity, server=self.server)
        return path

    def await_default_service_account(self) -> None:
        """Wait until pods may be created in the default namespace."""
        kubectl = Kubectl(self.kubeconfig)
        wait_for(
            "the default service account",
            lambda: kubectl.succeeds("get", "serviceaccount", "default", "-n", "default"),
            seconds=60,
        )

    def _prepare(self) -> None:
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        address = (self.node_address,) if self.node_address else ()
        hosts = (LOOPBACK, API_SERVICE, *address, *names, "kubernetes.default.svc.cluster.local")
        identities = (
            Identity("apiserver", "kube-apiserver", hosts=hosts),
            Identity("apiserver-kubelet-client", "kube-apiserver", "system:masters"),
            Identity("admin", "kubernetes-admin", "system:masters"),
            Identity("controller-manager", "system:kube-controller-manager"),
            Identity("scheduler", "system:kube-scheduler"),
        )
        self.root.mkdir(parents=True, exist_ok=True)
        ensure_pki(self.pki, identities)
        write_kubeconfig(self.kubeconfig, pki=self.pki, identity="admin", server=self.server)

    def _etcd(self) -> Service:
        client = f"http://{LOOPBACK}:{self.ports.etcd}"
        peer = f"http://{LOOPBACK}:{self.ports.etcd_peer}"
        return Service(
            "etcd",
            (
                str(executable("etcd")),
                f"--data-dir={self.root / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                # A lost machine loses a throw-away cluster; a killed process loses nothing.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ),
        )

    def _apiserver(self) -> Service:
        pki = self.pki
        policy = write_config(self.root / "config" / "audit-policy.yaml", "audit-policy.yaml")
        flags = [
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--secure-port={self.ports.apiserver}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--service-account-key-file={pki / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            # By name, `kubectl logs` would ask the machine's resolver for the node and fail.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ]
        if self.node_address:
            flags += ["--bind-address=0.0.0.0", f"--advertise-address={self.node_address}"]
        else:
            # No pod will ever ask for the API: a loopback endpoint would be refused anyway.
            flags += [f"--bind-address={LOOPBACK}", f"--advertise-address={LOOPBACK}"]
            flags += ["--endpoint-reconciler-type=none"]
        if self.audit:
            flags += [
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.audit_log}",
                # MB: what tests count in it must not be rotated away under them.
                "--audit-log-maxsize=200",
                "--audit-log-maxbackup=1",
            ]
        return Service(
            "kube-apiserver", (str(executable("kube-apiserver")), *flags), files=(policy,)
        )

    def _controller_manager(self) -> Service:
        return Service(
            "kube-controller-manager",
            (
                str(executable("kube-controller-manager")),
                f"--kubeconfig={self.kubeconfig_for('controller-manager')}",
                f"--service-account-private-key-file={self.pki / 'service-accounts.key'}",
                f"--root-ca-file={self.pki / 'ca.crt'}",
                f"--cluster-signing-cert-file={self.pki / 'ca.crt'}",
                f"--cluster-signing-key-file={self.pki / 'ca.key'}",
                "--use-service-account-credentials=true",
                "--allocate-node-cidrs=true",
                f"--cluster-cidr={POD_RANGE}",
                "--leader-elect=false",
                "--secure-port=0",
                # With the default client limits it completes three Jobs a second.
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                "--concurrent-job-syncs=20",
            ),
        )

    def _scheduler(self) -> Service:
        config = write_config(
            self.root / "config" / "scheduler.yaml",
            "scheduler.yaml",
            kubeconfig=self.kubeconfig_for("scheduler"),
        )
        return Service(
            "kube-scheduler",
            (str(executable("kube-scheduler")), f"--config={config}", "--secure-port=0"),
            files=(config,),
        )

    def _await_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")

        def ready() -> bool:
            self.supervisor.require("etcd", "kube-apiserver")
            try:
                url = f"{self.server}/readyz"
                with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        wait_for("the API server", ready, seconds=90, interval=0.1)
        self.supervisor.require(*PROCESSES)
