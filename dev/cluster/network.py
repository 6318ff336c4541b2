"""The node's network: one bridge that pods hang on, and the rules that let them out."""

import json
from collections.abc import Iterator
from pathlib import Path

from dev.cluster.command import run, succeeds

BRIDGE = "labfunctions0"
ADDRESS = "10.244.0.1"
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"

_COMMENT = ("-m", "comment", "--comment", "labfunctions")
RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("nat", "POSTROUTING", ("-s", POD_RANGE, "!", "-d", POD_RANGE, *_COMMENT, "-j", "MASQUERADE")),
    ("filter", "FORWARD", ("-s", POD_RANGE, *_COMMENT, "-j", "ACCEPT")),
    ("filter", "FORWARD", ("-d", POD_RANGE, *_COMMENT, "-j", "ACCEPT")),
)
# What the network needs, and what kubelet and kube-proxy set on their own.
OURS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
THEIRS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
)


class Network:
    """The bridge, its rules and the kernel settings; `root` remembers the former settings."""

    def __init__(self, root: Path) -> None:
        self._saved = root / "sysctl.json"

    def up(self) -> None:
        """Make what is missing."""
        # The bridge's address is the node's: nothing depends on the machine's own network.
        if not succeeds(["ip", "link", "show", BRIDGE]):
            run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "address", "replace", f"{ADDRESS}/24", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])
        # So that this machine reaches Services without a route to the rest of the world.
        run(["ip", "route", "replace", SERVICE_RANGE, "dev", BRIDGE, "src", ADDRESS])
        # Absent when the kernel has it built in; without it pods miss replies of Services.
        succeeds(["modprobe", "br_netfilter"])
        self._save_settings()
        for name, value in OURS.items():
            _write_setting(name, value)
        for table, chain, rule in RULES:
            if not succeeds(["iptables", "-w", "-t", table, "-C", chain, *rule]):
                run(["iptables", "-w", "-t", table, "-I", chain, *rule])

    def down(self) -> None:
        """Take everything away and set the kernel as it was found."""
        for table, chain, rule in RULES:
            while succeeds(["iptables", "-w", "-t", table, "-C", chain, *rule]):
                run(["iptables", "-w", "-t", table, "-D", chain, *rule])
        if succeeds(["ip", "link", "show", BRIDGE]):
            run(["ip", "link", "delete", BRIDGE])
        _remove_firewall_chain()
        if self._saved.exists():
            for name, value in json.loads(self._saved.read_text()).items():
                _write_setting(name, value)
            self._saved.unlink()

    def _save_settings(self) -> None:
        if not self._saved.exists():
            self._saved.write_text(json.dumps(dict(_settings())))


def _remove_firewall_chain() -> None:
    """Remove the one chain that kube-proxy makes and does not clean up."""
    for chain in ("INPUT", "OUTPUT"):
        while succeeds(["iptables", "-w", "-D", chain, "-j", "KUBE-FIREWALL"]):
            pass
    if succeeds(["iptables", "-w", "-F", "KUBE-FIREWALL"]):
        run(["iptables", "-w", "-X", "KUBE-FIREWALL"])


def _settings() -> Iterator[tuple[str, str]]:
    for name in (*OURS, *THEIRS):
        path = Path("/proc/sys", name)
        if path.exists():
            yield name, path.read_text().strip()


def _write_setting(name: str, value: str) -> None:
    path = Path("/proc/sys", name)
    if path.exists() and path.read_text().strip() != value:
        path.write_text(value)
