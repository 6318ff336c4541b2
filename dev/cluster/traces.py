"""What containerd, kubelet and the network plugins leave outside the cluster's folder."""

import socket
from pathlib import Path

CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
SHIM_SOCKETS = Path("/run/containerd/s")


def remove_traces(root: Path) -> None:
    """Remove what belongs to the cluster in `root` or to nobody; all of its processes are gone."""
    for note in CNI_RESULTS.glob("*"):
        if f"{root}/" in note.read_text():
            note.unlink()
    for link in CONTAINER_LOGS.glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(root):
            link.unlink()
    for file in SHIM_SOCKETS.glob("*"):
        if not accepts(file):
            file.unlink()
    if not accepts(DEVICE_PLUGINS / "kubelet.sock"):
        for file in DEVICE_PLUGINS.glob("*"):
            file.unlink()
    for folder in (CNI_RESULTS, CONTAINER_LOGS, DEVICE_PLUGINS, SHIM_SOCKETS):
        _remove_if_empty(folder)
        _remove_if_empty(folder.parent)


def accepts(path: Path) -> bool:
    """Tell whether somebody listens on a socket: its file outlives a killed process."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
