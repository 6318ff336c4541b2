"""The Debian packages that the cluster and the tests need from the system."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from dev.cluster.command import run
from dev.cluster.errors import ClusterError
from dev.cluster.progress import step

CNI_FOLDER = Path("/usr/lib/cni")


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _file(path: str) -> Callable[[], bool]:
    return lambda: Path(path).exists()


# A package counts as present when what is used of it is: it may come from elsewhere.
PACKAGES: dict[str, Callable[[], bool]] = {
    "buildah": _program("buildah"),
    "ca-certificates": _file("/etc/ssl/certs/ca-certificates.crt"),
    "containernetworking-plugins": _file(str(CNI_FOLDER / "bridge")),
    "dbus-daemon": _program("dbus-daemon"),
    "debootstrap": _program("debootstrap"),
    "gcc": _program("gcc"),
    "iproute2": _program("ip"),
    "iptables": _program("iptables"),
    "libc6-dev": _file("/usr/include/stdlib.h"),
    "git": _program("git"),
    "libseccomp-dev": _file("/usr/include/seccomp.h"),
    "openssh-server": _file("/usr/sbin/sshd"),
    "pkg-config": _program("pkg-config"),
    "prometheus": _program("promtool"),
}

# What only tests use: a bus, a server to log in to, and a judge of alerts.
TEST_PACKAGES = ("dbus-daemon", "git", "openssh-server", "prometheus")
CLUSTER_PACKAGES = tuple(name for name in PACKAGES if name not in TEST_PACKAGES)

# What a build with cgo needs, apart from Go itself.
BUILD_PACKAGES = ("gcc", "libc6-dev", "libseccomp-dev", "pkg-config")


def ensure_packages(names: Iterable[str] = CLUSTER_PACKAGES) -> None:
    """Install those of the named packages that are missing, when root.

    Raises:
        ClusterError: something is missing and cannot be installed from here.
    """
    missing = [name for name in names if not PACKAGES[name]()]
    if not missing:
        return
    install = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"these Debian packages are missing; run as root: {install}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing the Debian packages {' '.join(missing)}"):
        run(["apt-get", "update", "-qq"], env=quiet)
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], env=quiet)
    still = [name for name in missing if not PACKAGES[name]()]
    if still:
        raise ClusterError(f"installed, but still not found: {' '.join(still)}")
