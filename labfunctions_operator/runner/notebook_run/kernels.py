"""Which kernel runs a notebook."""

# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Any

from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.notebook import kernelspec_of, language_of

KERNEL_START_SECONDS = 120


def choose_kernel(notebook: dict[str, Any], available: dict[str, str]) -> str:
    """The kernel to execute a notebook with; raises Refused.

    Args:
        notebook: what asks for a kernel, by name or by language.
        available: the language of each kernel that the image has, by name.
    """
    if not available:
        raise Refused("RunnerMissing", "the image has no Jupyter kernel; add ipykernel to it")
    language = language_of(notebook)
    wanted = kernelspec_of(notebook).get("name")
    name = wanted or ("python3" if language in ("python", "") else "")
    if name in available:
        return str(name)
    # Names such as conda-env-x are of the author's machine.
    pythons = [of for of, speaks in available.items() if speaks.lower() == "python"]
    if len(pythons) == 1 and (language == "python" or not (wanted or language)):
        return pythons[0]
    needed = f"the kernel {wanted}" if wanted else f"a kernel for {language or 'python'}"
    message = f"the notebook needs {needed}; the image has: {', '.join(sorted(available))}"
    raise Refused("NotebookInvalid", message)


def available_kernels() -> dict[str, str]:
    """The language of each kernel that this Python's Jupyter finds, by name; empty if unsaid."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    return {name: str(spec["spec"].get("language") or "") for name, spec in specs.items()}
