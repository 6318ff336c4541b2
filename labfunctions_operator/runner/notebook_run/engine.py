"""papermill's engine, manager and client, each telling the session what happens."""

# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import os
from typing import Any

from labfunctions_operator.runner.notebook_run.kernels import KERNEL_START_SECONDS
from labfunctions_operator.runner.notebook_run.session import Session

AUTOSAVE_SECONDS = 5


def define_manager(session: Session) -> Any:
    """The manager of papermill that tells the session what happens to which cell."""
    from papermill.engines import NotebookExecutionManager

    class Manager(NotebookExecutionManager):  # type: ignore[misc]
        def save(self, **kwargs: Any) -> None:
            # The last save is ours to make: papermill's marks cells completed that never ran.
            if self.end_time is None:
                session.save()
            self.last_save_time = self.now()

        def autosave_cell(self) -> None:
            if session.unsaved:
                super().autosave_cell()

        def cell_start(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            session.cell_started(cell_index)
            super().cell_start(cell, cell_index, **kwargs)

        def cell_exception(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            error = kwargs["exception"]
            if getattr(error, "ename", "") == "SystemExit" and error.evalue in ("", "0", "None"):
                return
            super().cell_exception(cell, cell_index=cell_index, **kwargs)
            session.cell_failed(error)

        def cell_complete(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            super().cell_complete(cell, cell_index=cell_index, **kwargs)
            session.cell_ended()

    return Manager


def define_client(session: Session) -> Any:
    """The notebook client of papermill that autosaves, and does not lose a dead kernel's cell."""
    from nbclient.exceptions import CellExecutionError
    from nbclient.util import run_sync
    from papermill.clientwrap import PapermillNotebookClient

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        def start_new_kernel(self, **kwargs: Any) -> None:
            session.check()
            # Our own pipe: jupyter_client would close its own amid our reading.
            ours, kernels = os.pipe()
            session.console.follow(ours)
            try:
                super().start_new_kernel(stdout=kernels, stderr=kernels, **kwargs)
            finally:
                os.close(kernels)
            session.kernel = self.km.provisioner.process

        def papermill_execute_cells(self) -> None:
            super().papermill_execute_cells()
            session.finished = not session.failure and not session.stop_reason

        async def execute_and_save(self, cell: Any, cell_index: int, **kwargs: Any) -> Any:
            saving = asyncio.ensure_future(self.autosave())
            try:
                return await self.async_execute_cell(cell, cell_index, **kwargs)
            except CellExecutionError:
                raise
            except Exception as error:
                self.nb_man.cell_exception(cell, cell_index=cell_index, exception=error)
                raise
            finally:
                saving.cancel()

        execute_cell = run_sync(execute_and_save)

        async def autosave(self) -> None:
            while True:
                await asyncio.sleep(AUTOSAVE_SECONDS)
                self.nb_man.autosave_cell()

        def process_message(self, *args: Any, **kwargs: Any) -> Any:
            session.unsaved = True
            return super().process_message(*args, **kwargs)

        def log_output_message(self, output: Any) -> None:
            session.console.show(output)

    return Client


def define_engine(session: Session) -> Any:
    """The engine of papermill that runs with our manager and client."""
    from papermill.engines import NBClientEngine

    new_manager, new_client = define_manager(session), define_client(session)

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_notebook(cls, nb: Any, kernel_name: str, **kwargs: Any) -> Any:
            manager = new_manager(nb, progress_bar=False, autosave_cell_every=AUTOSAVE_SECONDS)
            # Older versions of papermill execute a copy.
            session.notebook = manager.nb
            # As it was given: a notebook with a NaN in its metadata is no JSON.
            about = manager.nb.metadata["papermill"]
            about["parameters"] = {**about.get("parameters", {}), **session.config.parameters}
            manager.notebook_start()
            try:
                new_client(
                    manager,
                    kernel_name=kernel_name,
                    startup_timeout=KERNEL_START_SECONDS,
                    log_output=True,
                ).execute()
            finally:
                manager.notebook_complete()
            return manager.nb

    return Engine
