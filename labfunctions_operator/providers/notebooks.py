"""Reads notebooks without running them."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labfunctions_operator.providers.git_errors import one_line
from labfunctions_operator.reconcile.source import Notebook
from labfunctions_operator.runner.notebook_run.declared import declared_parameters
from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.notebook import load_notebook

NOTEBOOK_LIMIT = 10 * 2**20
_CHUNK = 2**20


def read_notebook(read: Callable[[int], bytes], size: int) -> Notebook:
    """Inspects one file.

    Args:
        read: Gives the next bytes of the file, at most as many as asked for.
        size: Of the whole file.
    """
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(suffix=".ipynb") as copy:
        while chunk := read(_CHUNK):
            digest.update(chunk)
            if size <= NOTEBOOK_LIMIT:
                copy.write(chunk)
        copy.flush()
        sha256 = digest.hexdigest()
        if size > NOTEBOOK_LIMIT:
            return Notebook(
                sha256, error=f"is larger than {NOTEBOOK_LIMIT >> 20} MiB; clear its outputs"
            )
        return _inspect(Path(copy.name), sha256)


def _inspect(path: Path, sha256: str) -> Notebook:
    try:
        language = _language(load_notebook(path))
        declared = declared_parameters(path)
    except Refused as error:
        return Notebook(sha256, error=one_line(str(error).removeprefix(str(path)).strip()))
    except Exception as error:  # anything may be in a file of this name, none may stop the rest
        return Notebook(sha256, error=one_line(f"is not a notebook: {error}"))
    return Notebook(
        sha256, declared=None if declared is None else tuple(declared), language=language
    )


def _language(notebook: dict[str, Any]) -> str | None:
    metadata = notebook.get("metadata", {})
    kernel = metadata.get("kernelspec", {}).get("language")
    name = kernel or metadata.get("language_info", {}).get("name")
    return one_line(str(name), 50).lower() if name else None
