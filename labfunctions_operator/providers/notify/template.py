"""A Project's own text for messages: Jinja in a sandbox, in a process of its own.

A template can loop for hours or fill memory, sandboxed or not, and a thread cannot be stopped:
so it runs where it can be killed, with no file, no environment and little time and memory.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labfunctions_operator.providers.notify.gate import Undeliverable

# So little that all messages under way at once have their turn within one try.
TIMEOUT = 3.0
SANDBOX = Path(__file__).with_name("sandbox.py")


class Renderer:
    """Renders one message's templates at a time, as its process takes of the operator's memory."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def render(
        self, templates: Mapping[str, str], variables: Mapping[str, Any]
    ) -> dict[str, str]:
        """Render some templates with the same variables.

        Args:
            templates: Sources by name.
            variables: JSON values.

        Raises:
            Undeliverable: One of them cannot be rendered, with Jinja's words; or it takes too
                long.
        """
        task = json.dumps({"templates": dict(templates), "variables": dict(variables)}).encode()
        async with self._turn:
            output = await _run_sandbox(task)
        try:
            answer = json.loads(output)
        except ValueError:
            raise Undeliverable("the template takes too long, or too much memory") from None
        if "error" in answer:
            raise Undeliverable(f"the template fails: {answer['error']}")
        rendered: dict[str, str] = answer["rendered"]
        return rendered


async def _run_sandbox(task: bytes) -> bytes:
    """Return what the sandbox says; nothing if it takes too long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(SANDBOX),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate(task)
        return output
    except TimeoutError:
        return b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
