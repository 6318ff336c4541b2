"""The examples, applied as a user applies them: from manifests to notebooks in the store."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.cluster.versions import HERE
from dev.gitserver.push import publish
from dev.storage import copy_outputs

from .cluster import Team
from .objects import Object, condition, printed

EXAMPLES = HERE.parent.parent / "examples"
RUNS = ("wine-analysis-1", "wine-analysis-small-test", "wine-broken-1")
SECONDS = 600


@pytest.fixture(scope="module")
def wine(new_team: Callable[..., Team]) -> Team:
    """The examples' objects, in a namespace of their own."""
    team = new_team()
    repository = f"{team.namespace}.git"
    publish(EXAMPLES, repository, "The wine analysis")
    for name in ("project", "workflow", "runs"):
        text = (EXAMPLES / "manifests" / f"{name}.yaml").read_text()
        text = text.replace("team-wine", team.namespace).replace("wine.git", repository)
        team.kubectl("apply", "-f", "-", text=text)
    team.await_reason("project", "wine", "Ready", seconds=SECONDS)
    return team


@pytest.fixture(scope="module")
def ended(wine: Team) -> dict[str, Object]:
    return {name: wine.await_end(name, seconds=SECONDS) for name in RUNS}


def parameters(notebook: Object) -> str:
    """Return the cell that papermill has injected."""
    [cell] = [
        c for c in notebook["cells"] if "injected-parameters" in c["metadata"].get("tags", [])
    ]
    return "".join(cell["source"])


def test_the_image_is_named_by_digest(wine: Team) -> None:
    [runtime] = wine.get("project", "wine")["status"]["runtimes"]
    assert re.fullmatch(r"\S+/wine@sha256:[0-9a-f]{64}", runtime["image"])


@pytest.mark.parametrize("name", RUNS[:2])
def test_a_run_succeeds(ended: dict[str, Object], wine: Team, name: str) -> None:
    run = ended[name]
    assert run["status"]["phase"] == "Succeeded", wine.describe(f"run/{name}")
    assert condition(run)["status"] == "True"
    snapshot = run["status"]["snapshot"]
    project = wine.get("project", "wine")["status"]
    assert snapshot["image"] == project["runtimes"][0]["image"]
    assert snapshot["commit"] == project["source"]["commit"]
    cells = len(json.loads((EXAMPLES / "wine" / "analysis.ipynb").read_text())["cells"])
    assert run["status"]["progress"]["summary"] == f"{cells}/{cells}"


def test_parameters_arrive_with_their_types(ended: dict[str, Object], wine: Team) -> None:
    first = wine.read_notebook(ended["wine-analysis-1"])
    assert "n_estimators = 100\n" in parameters(first) + "\n"
    assert "100 trees trained on 124 wines" in printed(first)
    second = parameters(wine.read_notebook(ended["wine-analysis-small-test"]))
    assert "n_estimators = 200\n" in second + "\n"
    assert "test_size = 0.2\n" in second + "\n"


def test_a_notebook_knows_who_it_is(ended: dict[str, Object], wine: Team) -> None:
    injected = parameters(wine.read_notebook(ended["wine-analysis-1"]))
    assert 'WFID = "wine-analysis"' in injected
    assert 'EXECID = "wine-analysis-1"' in injected
    assert re.search(r'NOW = "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', injected)
    assert 'PROJECT = "wine"' in injected
    assert "ATTEMPT = 1" in injected


def test_all_results_are_stored(ended: dict[str, Object], wine: Team) -> None:
    run = ended["wine-analysis-1"]
    folder = f"{wine.namespace}/wine/wine-analysis/wine-analysis-1-{run['metadata']['uid'][:8]}"
    outputs = run["status"]["outputs"]
    etags = {k: wine.cluster.etag(outputs[k]) for k in ("notebook", "html", "result")}
    assert outputs == {
        "notebook": f"s3://labfunctions/{folder}/1/notebook.ipynb",
        "html": f"s3://labfunctions/{folder}/1/notebook.html",
        "result": f"s3://labfunctions/{folder}/1/result.json",
        "record": f"s3://labfunctions/{folder}/run.json",
        "etags": etags,
    }
    page = wine.cluster.read_object(outputs["html"]).decode()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert 'src="data:image/png;base64,' in page
    assert "Which grower made this wine?" in page
    result = json.loads(wine.cluster.read_object(outputs["result"]))
    assert result["reason"] == "Succeeded"
    assert result["versions"]["papermill"]


def test_results_are_copied_as_the_demo_does(
    ended: dict[str, Object], wine: Team, tmp_path: Path
) -> None:
    outputs = ended["wine-analysis-1"]["status"]["outputs"]
    copied = copy_outputs(wine.cluster.kubectl, outputs, tmp_path)
    names = {"notebook.ipynb", "notebook.html", "result.json", "run.json"}
    assert {path.name for _, path in copied} == names
    assert all(path.stat().st_size for _, path in copied)


def test_the_record_joins_what_made_the_result(ended: dict[str, Object], wine: Team) -> None:
    run = ended["wine-analysis-1"]
    record = json.loads(wine.cluster.read_object(run["status"]["outputs"]["record"]))
    assert (record["spec"], record["status"]) == (run["spec"], run["status"])
    made_of, project = record["status"]["snapshot"], wine.get("project", "wine")["status"]
    assert made_of["commit"] == project["source"]["commit"]
    source = (EXAMPLES / "wine" / "analysis.ipynb").read_bytes()
    assert made_of["notebookSha256"] == hashlib.sha256(source).hexdigest()
    assert "@sha256:" in made_of["image"]
    assert re.fullmatch(r"[0-9a-f]{64}", made_of["requirementsHash"])
    assert made_of["parameters"] == {"n_estimators": 100}
    assert record["status"]["attempts"][0]["node"]
    versions = record["status"]["versions"]
    assert re.fullmatch(r"\d+\.\d+\.\S+", versions["papermill"])
    assert re.fullmatch(r"python3 \d+\.\S+", versions["kernel"])
    outputs = record["status"]["outputs"]
    for name in ("notebook", "html", "result"):
        assert outputs["etags"][name] == wine.cluster.etag(outputs[name])


def test_a_failure_names_cell_and_exception(ended: dict[str, Object], wine: Team) -> None:
    run = ended["wine-broken-1"]
    assert run["status"]["phase"] == "Failed", wine.describe("run/wine-broken-1")
    failure = run["status"]["failure"]
    assert failure["reason"] == condition(run)["reason"] == "NotebookError"
    assert failure["cell"]["index"] == 2
    assert failure["cell"]["id"] == "data"
    assert failure["cell"]["source"] == "from sklearn.datasets import load_wine"
    assert failure["exception"]["name"] == "ValueError"
    assert "the data has no column 'colour'" in failure["exception"]["message"]
    assert failure["exitCode"] == 1
    assert "ValueError: the data has no column 'colour'" in condition(run)["message"]
    assert run["status"]["progress"]["summary"] == "3/5"


def test_a_failed_run_keeps_its_notebook(ended: dict[str, Object], wine: Team) -> None:
    notebook = wine.read_notebook(ended["wine-broken-1"])
    errors = [o for c in notebook["cells"] for o in c.get("outputs", []) if "ename" in o]
    assert errors[0]["ename"] == "ValueError"
    states = {c["id"]: c["metadata"].get("papermill", {}).get("status") for c in notebook["cells"]}
    assert (states["data"], states["plot"]) == ("failed", "pending")


def test_kubectl_get_answers_what_happened(ended: dict[str, Object], wine: Team) -> None:
    table = wine.kubectl("get", "lfr").splitlines()
    assert re.split(r"\s{2,}", table[0])[:6] == [
        *("NAME", "WORKFLOW", "PHASE", "PROGRESS", "REASON", "SECONDS")
    ]
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in table[1:]}
    assert rows["wine-broken-1"][1:5] == ["wine-broken", "Failed", "3/5", "NotebookError"]
    assert "ValueError" in rows["wine-broken-1"][-1]
    assert rows["wine-analysis-1"][2] == rows["wine-analysis-1"][4] == "Succeeded"
    projects = wine.kubectl("get", "lfp", "-o", "wide")
    assert re.search(r"wine\s+True\s+Ready\s+main\s.*[0-9a-f]{40}", projects)
    assert re.search(r"wine-broken\s+True", wine.kubectl("get", "lfw"))


def test_kubectl_describe_tells_of_the_failure(ended: dict[str, Object], wine: Team) -> None:
    def look() -> bool:
        text = wine.kubectl("describe", "run", "wine-broken-1")
        return bool(re.search(r"Warning\s+NotebookError\s.*raised ValueError", text))

    wine.until("the event", look, about="run/wine-broken-1")


def test_the_user_s_objects_stay_in_sync(ended: dict[str, Object], wine: Team) -> None:
    for name in ("project", "workflow", "runs"):
        text = (EXAMPLES / "manifests" / f"{name}.yaml").read_text()
        text = text.replace("team-wine", wine.namespace)
        text = text.replace("wine.git", f"{wine.namespace}.git")
        wine.kubectl("diff", "-f", "-", text=text)  # fails if anything differs
    for kind in ("project", "workflow", "run"):
        for found in wine.find(kind):
            assert found["metadata"]["generation"] == 1
