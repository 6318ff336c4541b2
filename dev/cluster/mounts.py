"""Mounts below a folder."""

from pathlib import Path

from dev.cluster.command import run


def mounts_below(folder: Path, *, table: str | None = None) -> list[str]:
    """Return the mount points below a folder, the innermost first.

    Args:
        folder: Where to look; the folder itself counts.
        table: The text of a mountinfo file; this process's own when omitted.
    """
    text = table if table is not None else Path("/proc/self/mountinfo").read_text()
    points = [_unescape(line.split()[4]) for line in text.splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, also what is still in use."""
    for point in mounts_below(folder):
        run(["umount", "--lazy", point])


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of blanks and backslashes."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
