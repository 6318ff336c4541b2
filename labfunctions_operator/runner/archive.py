"""The runner as the one file that travels to the user's image: a zip that Python runs."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from labfunctions_operator.runner import notebook_run
from labfunctions_operator.runner.notebook_run.pod import write_atomically

MAIN = "__main__.py"


def sources() -> dict[str, str]:
    """The sources of the runner's modules, by their paths in the zip.

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


def zipped(sources: Mapping[str, str]) -> bytes:
    """Packs sources into a zip; the same sources give the same bytes.

    They are stored as they are: a Python without zlib can import them, too.
    """
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, source in sources.items():
            archive.writestr(ZipInfo(name), source)
    return packed.getvalue()


def install(folder: Path) -> Path:
    """Puts the runner into a folder, which is made if need be; returns the program to start."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "runner.pyz"
    write_atomically(program, zipped(sources()))
    return program
