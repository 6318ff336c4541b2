"""What of the runner travels to the user's image."""

import os
from pathlib import Path

from labfunctions_operator.runner import notebook_run
from labfunctions_operator.runner.notebook_run.pod import write_atomically

MAIN = "__main__.py"


def sources() -> dict[str, str]:
    """The sources of the runner's modules, by their paths beneath the folder of its main program.

    They keep their package, so that they import each other there as they do here, and hide no
    module of the user's; of the packages around theirs nothing else is there.
    """
    package = Path(notebook_run.__file__).parent
    names = notebook_run.__name__.split(".")
    found = {f"{'/'.join(names[:depth])}/__init__.py": "" for depth in range(1, len(names))}
    for path in sorted(package.glob("*.py")):
        name = MAIN if path.name == MAIN else f"{'/'.join(names)}/{path.name}"
        found[name] = path.read_text("utf-8")
    return found


def install(folder: Path) -> Path:
    """Puts the runner into a folder; returns the program to start."""
    for name, source in sources().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, source)
    program = folder / "runner.py"
    os.replace(folder / MAIN, program)
    return program
