"""Runs a notebook: what is checked before, and papermill's call."""

# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from labfunctions_operator.runner.notebook_run.declared import declared_parameters
from labfunctions_operator.runner.notebook_run.engine import define_engine
from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.kernels import available_kernels, choose_kernel
from labfunctions_operator.runner.notebook_run.notebook import kernelspec_of, load_notebook
from labfunctions_operator.runner.notebook_run.parameters import as_declared, check_parameters
from labfunctions_operator.runner.notebook_run.session import Session


def execute(session: Session) -> None:
    """Runs the notebook; raises Refused before the kernel starts, or what went wrong after."""
    config = session.config
    path = os.path.abspath(config.notebook)
    with contextlib.suppress(OSError):
        session.sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    notebook = load_notebook(path)
    declared = declared_parameters(path)
    problems = check_parameters(declared, config.parameters, config.policy)
    if problems:
        raise Refused("ParametersInvalid", "; ".join(problems))
    try:
        import papermill
        from papermill.engines import papermill_engines
        from papermill.iorw import load_notebook_node
    except Exception as error:
        message = f"papermill cannot be imported by {sys.executable}: {error}; add it to the image"
        raise Refused("RunnerMissing", message) from error
    papermill.log.logger.setLevel("ERROR")
    try:
        load_notebook_node(path)
    except Exception as error:
        raise Refused("NotebookInvalid", f"{path} is not a valid notebook: {error}") from error
    kernels = available_kernels()
    session.kernel_name = choose_kernel(notebook, kernels)
    wanted = kernelspec_of(notebook).get("name", session.kernel_name)
    if wanted != session.kernel_name:
        session.console.say(f"the image has no kernel {wanted}: running on {session.kernel_name}")
    session.read(notebook)
    papermill_engines.register("labfunctions", define_engine(session))
    papermill.execute_notebook(
        # papermill formats paths with the parameters: a brace must stay a brace.
        path.replace("{", "{{").replace("}", "}}"),
        None,
        parameters={**config.inject, **as_declared(declared, config.parameters)},
        engine_name="labfunctions",
        kernel_name=session.kernel_name,
        language=kernels[session.kernel_name],
    )
