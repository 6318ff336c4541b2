"""A Project's own text for messages: Jinja in a sandbox, in a process of its own.

A template can loop for hours or fill memory, sandboxed or not, and a thread cannot be stopped:
so it runs where it can be killed, with no file, no environment and little time.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labfunctions_operator.providers.notify.gate import Undeliverable

TIMEOUT = 5.0
SANDBOX = Path(__file__).with_name("sandbox.py")


async def render(templates: Mapping[str, str], variables: Mapping[str, Any]) -> dict[str, str]:
    """Render some templates with the same variables.

    Args:
        templates: Sources by name.
        variables: JSON values.

    Raises:
        Undeliverable: One of them cannot be rendered, with Jinja's words; or it takes too long.
    """
    task = json.dumps({"templates": dict(templates), "variables": dict(variables)}).encode()
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
        answer = json.loads(output)
    except (TimeoutError, ValueError):
        raise Undeliverable("the template takes too long, or too much memory") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if "error" in answer:
        raise Undeliverable(f"the template fails: {answer['error']}")
    rendered: dict[str, str] = answer["rendered"]
    return rendered
