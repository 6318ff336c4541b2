"""Writing files that running processes watch."""

from pathlib import Path


def write_if_changed(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file in one piece, and not at all when it already holds the text.

    kube-proxy ends when its configuration is touched, even by the same content.
    """
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=mode)
    fresh.write_text(text)
    fresh.replace(path)
