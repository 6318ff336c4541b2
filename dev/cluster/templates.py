"""The components' configuration files, as they lie in `config/`, with their places filled in."""

from pathlib import Path
from string import Template

from dev.cluster.files import write_if_changed
from dev.cluster.versions import HERE


def render(name: str, **values: str | int | Path) -> str:
    """Return a file of `config/` with every `$name` replaced; an unknown one is an error."""
    return Template((HERE / "config" / name).read_text()).substitute(values)


def write_config(path: Path, name: str, **values: str | int | Path) -> Path:
    """Render a file of `config/` to `path`, which is returned."""
    write_if_changed(path, render(name, **values))
    return path
