"""A Run whose first attempt is interrupted: what must be kept of it, and how it goes on."""

import json

from .cluster import Team
from .objects import WAIT, Object, notebook

HALF = f"print('half way', flush=True)\n{WAIT}"
LONG = notebook("print('first cell')", HALF, "print('the end')")


def stored(team: Team, uri: str) -> str:
    return team.cluster.read_object(uri).decode()


def assert_kept(team: Team, notebook: str) -> None:
    """The store has what the running cell had printed, in both forms."""
    for uri in (notebook, notebook.replace(".ipynb", ".html")):
        assert "half way" in stored(team, uri)
    states = {
        "".join(cell["source"]): cell["metadata"]["papermill"]["status"]
        for cell in json.loads(stored(team, notebook))["cells"]
        if "papermill" in cell["metadata"]
    }
    assert states["print('first cell')"] == "completed"
    assert states["print('the end')"] != "completed"


def finish(team: Team, name: str) -> Object:
    """Let the second attempt of a Run go on to its end, and return the Run."""

    def runs_again() -> bool:
        pods = team.find("pods", run=name, attempt="2")
        return any(p["status"]["phase"] == "Running" for p in pods)

    team.until("the second attempt", runs_again, about=f"run/{name}")
    team.until("the first pod to go", lambda: len(team.find("pods", run=name)) == 1)
    team.await_cell(name, "half way")
    team.let_go(name)
    return team.await_success(name)
