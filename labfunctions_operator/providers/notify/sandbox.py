"""The program that renders templates; its own process, which knows nothing else of ours."""

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 2
# Beyond what it takes to start: it is the operator's own memory.
MEMORY = 64 * 1024 * 1024
OUTPUT_LIMIT = 16 * 1024


def _render(source: str, variables: Mapping[str, Any]) -> str:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    pieces: list[str] = []
    room = OUTPUT_LIMIT
    for piece in environment.from_string(source).generate(**variables):
        pieces.append(piece[:room])
        room -= len(piece)
        if room <= 0:
            break
    return "".join(pieces)


def _memory_in_use() -> int:
    """Return the bytes of address space of this process."""
    with open("/proc/self/statm", encoding="ascii") as sizes:
        return int(sizes.read().split()[0]) * resource.getpagesize()


def main() -> None:
    """Read a task from standard input, and write its result to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    memory = _memory_in_use() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    task = json.load(sys.stdin)
    try:
        rendered = {n: _render(s, task["variables"]) for n, s in task["templates"].items()}
        answer: dict[str, Any] = {"rendered": rendered}
    except Exception as error:  # whatever a user's template may raise
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
