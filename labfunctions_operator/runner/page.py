"""Makes a page for a browser of an executed notebook."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

RENDER_LIMIT_BYTES = 50 * 2**20
RENDER_SECONDS = 120.0


def render(notebook: Path, page: Path) -> None:
    """Renders the page in a process of its own: a notebook may take it any memory or time.

    The user wrote the notebook: no configuration, template or image file may be read for it, as
    `![](/proc/1/environ)` would ask for. Images in outputs and attachments are in the page anyway.
    """
    size = notebook.stat().st_size
    if size > RENDER_LIMIT_BYTES:
        raise ValueError(f"the notebook has {size} bytes, more than {RENDER_LIMIT_BYTES}")
    folder = str(page.parent)
    source = shutil.copy(notebook, page.with_suffix(".ipynb"))
    command = [sys.executable, "-I", "-m", "nbconvert", "--to", "html"]
    done = subprocess.run(
        [*command, "--log-level=ERROR", "--output", page.name, source],
        cwd=folder,
        env={"HOME": folder, "PATH": os.defpath, "JUPYTER_NO_CONFIG": "1"},
        capture_output=True,
        text=True,
        timeout=RENDER_SECONDS,
        check=False,
    )
    if done.returncode or not page.exists():
        raise ValueError((done.stderr.strip().splitlines() or ["no page came out"])[-1])
