from pathlib import Path

from dev.cluster.mounts import mounts_below

TABLE = """\
20 1 254:0 / / rw - ext4 /dev/vda rw
30 20 0:40 / /srv/cluster/kubelet/pods/a rw - tmpfs tmpfs rw
31 30 0:41 / /srv/cluster/kubelet/pods/a/with\\040blank rw - tmpfs tmpfs rw
32 20 0:42 / /srv/cluster-other rw - tmpfs tmpfs rw
"""


def test_only_mounts_of_the_folder_come_the_innermost_first() -> None:
    assert mounts_below(Path("/srv/cluster"), table=TABLE) == [
        "/srv/cluster/kubelet/pods/a/with blank",
        "/srv/cluster/kubelet/pods/a",
    ]
