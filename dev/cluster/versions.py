"""What `versions.toml` says: the components, their versions and how each is built."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Component:
    """One Go module that is built into one or more executables."""

    name: str
    version: str
    module: str
    folder: Path
    seconds: int
    packages: tuple[str, ...]
    stamps: tuple[str, ...]
    cgo: bool
    tags: tuple[str, ...]
    executable: str | None

    @property
    def executables(self) -> tuple[str, ...]:
        """The names of the files that a build yields."""
        if self.executable:
            return (self.executable,)
        return tuple(self.name if p == "." else p.rsplit("/", 1)[-1] for p in self.packages)

    @property
    def ldflags(self) -> str:
        """The linker's flags: no symbols, and the version where the component looks for it."""
        major, minor, _ = self.version.split(".", 2)
        values = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
        stamps = [f"-X {p}.{key}={value}" for p in self.stamps for key, value in values.items()]
        return " ".join(["-s -w", *stamps])


@cache
def components() -> dict[str, Component]:
    """Return all components by name, in the order they are built."""
    table = tomllib.loads((HERE / "versions.toml").read_text())
    return {name: _component(name, entry) for name, entry in table.items()}


def _component(name: str, entry: dict[str, Any]) -> Component:
    return Component(
        name=name,
        version=entry["version"],
        module=entry["module"],
        folder=HERE / "modules" / entry.get("folder", name),
        seconds=entry["seconds"],
        packages=tuple(entry.get("packages", ["."])),
        stamps=tuple(entry.get("stamps", [])),
        cgo=entry.get("cgo", False),
        tags=tuple(entry.get("tags", [])),
        executable=entry.get("executable"),
    )
