"""Every way to bound, stop, retry and repeat a Run, each with its notebook in the store."""

from collections.abc import Callable

import pytest

from .cluster import Repository, Team
from .objects import GATE, HELLO, condition, inline_run, notebook, printed, project, run, secret

LIMIT = {"limits": {"memory": "300Mi"}}
GREEDY = notebook(
    "print('before')",
    "block = bytearray(400 * 2**20)\nblock[::4096] = b'x' * len(block[::4096])\nprint('fine')",
)
SECOND_TIME = notebook("if ATTEMPT < 2:\n    raise OSError('not yet')", "print('now', ATTEMPT)")
RESULT = notebook(
    """display({"application/vnd.labfunctions.result+json": {"right": 0.98}}, raw=True)""",
    """display({"application/vnd.labfunctions.result+json": {"rows": 2**70}}, raw=True)""",
)
TOKEN = notebook("import os", "print('the token is', os.environ['TOKEN'])")
HIDDEN = {"TOKEN": "hunter2-hunter2", "WORD": "correct'horse"}
LEAKS = notebook(
    "import os\ntoken, word = os.environ['TOKEN'], os.environ['WORD']",
    "print('the token is', token, [word])\nos.system('echo below Python: $TOKEN')",
    """display({"application/vnd.labfunctions.result+json": {"at": token, "n": 1}}, raw=True)""",
    "raise ValueError(f'{token} and {word}')",
)
NOTEBOOKS: dict[str, str | None] = {
    "hello.ipynb": HELLO,
    "gate.ipynb": GATE,
    "greedy.ipynb": GREEDY,
    "second.ipynb": SECOND_TIME,
    "token.ipynb": TOKEN,
    "leaks.ipynb": LEAKS,
    "result.ipynb": RESULT,
}


@pytest.fixture(scope="module")
def lab(new_team: Callable[..., Team], new_repository: Callable[[str], Repository]) -> Team:
    """A team with a Project of all these notebooks, and the Runs that need nobody's help."""
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit(NOTEBOOKS, "Begin")
    team.apply(project(repository=repository.name))
    team.await_image(commit)
    team.apply(
        inline_run("slow", "gate.ipynb", timeoutSeconds=20),
        inline_run("slow-cell", "gate.ipynb", cellTimeoutSeconds=4),
        inline_run("nowhere", "hello.ipynb", nodeSelector={"no": "such"}, pendingTimeoutSeconds=12),
        inline_run("second", "second.ipynb", retries={"limit": 3, "backoff": {"duration": "1s"}}),
        inline_run(
            "greedy",
            "greedy.ipynb",
            resources=LIMIT,
            retries={
                "limit": 2,
                "backoff": {"duration": "1s"},
                "memory": {"factor": 2, "max": "1Gi"},
            },
        ),
        inline_run("result", "result.ipynb"),
        secret("token", {"token": HIDDEN["TOKEN"]}),
        secret("words", {"WORD": HIDDEN["WORD"]}),
        inline_run(
            "leaks",
            "leaks.ipynb",
            env=[
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}
            ],
            envFrom=[{"secretRef": {"name": "words"}}],
        ),
        inline_run("no-secret", "token.ipynb", envFrom=[{"secretRef": {"name": "later"}}]),
    )
    return team


def test_a_run_that_takes_too_long_is_stopped_and_kept(lab: Team) -> None:
    ended = lab.await_end("slow")
    assert condition(ended)["reason"] == "TimedOut"
    assert "begun" in printed(lab.read_notebook(ended))


def test_a_cell_that_takes_too_long_is_named(lab: Team) -> None:
    ended = lab.await_end("slow-cell")
    assert condition(ended)["reason"] == "CellTimedOut"
    assert ended["status"]["failure"]["cell"]["index"] == 1


def test_a_run_that_finds_no_node_ends_in_the_schedulers_words(lab: Team) -> None:
    ended = lab.await_end("nowhere")
    assert condition(ended)["reason"] == "PendingTimedOut"
    assert "didn't match Pod's node affinity/selector" in condition(ended)["message"]
    lab.until("its Job to be gone", lambda: not lab.find("jobs", run="nowhere"))


def test_a_failure_is_tried_again_with_an_output_of_its_own(lab: Team) -> None:
    ended = lab.await_success("second")
    first, second = ended["status"]["attempts"]
    assert (first["reason"], second["reason"]) == ("NotebookError", "Succeeded")
    assert first["notebook"] != second["notebook"] == ended["status"]["outputs"]["notebook"]
    assert "now 2" in printed(lab.read_notebook(ended))


def test_a_run_out_of_memory_gets_more_of_it(lab: Team) -> None:
    ended = lab.await_success("greedy")
    attempts = [(a["memory"], a["reason"]) for a in ended["status"]["attempts"]]
    assert attempts == [("300Mi", "OutOfMemory"), ("600Mi", "Succeeded")]


def test_a_run_returns_what_its_notebook_displays_as_a_result(lab: Team) -> None:
    ended = lab.await_success("result")
    assert ended["status"]["results"] == {"right": 0.98, "rows": str(2**70)}
    assert {"python", "papermill", "kernel"} <= set(ended["status"]["versions"])


def test_a_missing_secret_is_named_and_the_run_starts_once_it_is_there(lab: Team) -> None:
    waiting = lab.await_reason("run", "no-secret", "StartError")
    assert 'secret "later" not found' in condition(waiting)["message"]
    lab.apply(secret("later", {"TOKEN": "hunter2-hunter2"}))
    ended = lab.await_success("no-secret")
    text = printed(lab.read_notebook(ended))
    assert "the token is" in text
    assert "hunter2" not in text, "a secret's value is masked before it is stored"


def test_what_a_notebook_tells_of_its_secrets_is_told_nowhere(lab: Team) -> None:
    ended = lab.await_end("leaks")
    assert "[masked] and [masked]" in condition(ended)["message"]
    assert ended["status"]["failure"]["exception"]["message"] == "[masked] and [masked]"
    assert ended["status"]["results"] == {"at": "[masked]", "n": 1}
    names = ("notebook", "html", "result", "record")
    stored = {n: lab.cluster.read_object(ended["status"]["outputs"][n]).decode() for n in names}
    log = lab.log("leaks")
    assert "the token is [masked]" in log
    assert "below Python: [masked]" in log
    assert "the token is [masked]" in stored["notebook"]
    told = {
        **stored,
        "log": log,
        "courier": lab.log("leaks", "courier"),
        "objects": lab.kubectl("get", "runs,jobs,pods,events", "-o", "json"),
        "operator": "\n".join(lab.cluster.operator_log("--since=10m")),
    }
    parts = ("hunter2", "horse")
    assert [where for where, text in told.items() if any(p in text for p in parts)] == []


def test_a_cancelled_run_keeps_what_it_has(lab: Team) -> None:
    lab.apply(inline_run("cancelled", "gate.ipynb"))
    lab.await_cell("cancelled", "begun")
    lab.kubectl("patch", "run", "cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    ended = lab.await_end("cancelled")
    assert ended["status"]["phase"] == "Cancelled"
    assert "begun" in printed(lab.read_notebook(ended))
    assert len(ended["status"]["attempts"]) == 1


def test_a_disrupted_run_is_started_anew_and_that_counts_as_no_retry(lab: Team) -> None:
    lab.apply(inline_run("disrupted", "gate.ipynb"))
    lab.await_cell("disrupted", "begun")
    lab.kubectl("delete", "pod", lab.pod("disrupted")["metadata"]["name"], "--wait=false")

    def second_pod() -> bool:
        pods = lab.find("pods", run="disrupted", attempt="2")
        return any(p["status"]["phase"] == "Running" for p in pods)

    lab.until("the second attempt", second_pod, about="run/disrupted")
    lab.until("the first pod to go", lambda: len(lab.find("pods", run="disrupted")) == 1)
    lab.await_cell("disrupted", "begun")
    lab.let_go("disrupted")
    ended = lab.await_success("disrupted")
    first, _ = ended["status"]["attempts"]
    assert first["reason"] == "Disrupted"
    stored = lab.cluster.read_object(first["notebook"])
    assert b"begun" in stored, "the notebook of the disrupted attempt is kept"


def test_a_run_deleted_in_flight_leaves_nothing_and_its_name_can_be_used_again(lab: Team) -> None:
    outputs = []
    for _ in range(2):
        lab.apply(inline_run("twice", "gate.ipynb"))
        lab.await_cell("twice", "begun")
        outputs.append(lab.get("run", "twice")["status"]["outputs"]["notebook"])
        lab.kubectl("delete", "run", "twice")
        lab.until("Job and pod to be gone", lambda: not lab.find("jobs,pods", run="twice"))
    first, second = outputs
    assert first != second


def test_a_run_is_repeated_exactly(lab: Team) -> None:
    lab.apply(inline_run("origin", "hello.ipynb", parameters={"name": "wine", "count": 2}))
    origin = lab.await_success("origin")
    lab.apply(run("repeated", **{"from": "origin"}))
    repeated = lab.await_success("repeated")
    assert repeated["status"]["snapshot"] == origin["status"]["snapshot"]
    assert "hello wine again again" in printed(lab.read_notebook(repeated))


def test_a_quota_is_what_a_run_waits_for(lab: Team) -> None:
    lab.kubectl("create", "quota", "none", "--hard=count/pods=0,pods=0")
    lab.apply(inline_run("thrifty", "hello.ipynb"))
    waiting = lab.await_reason("run", "thrifty", "QuotaExceeded")
    assert "exceeded quota: none" in condition(waiting)["message"]
    lab.kubectl("delete", "quota", "none")
    lab.await_success("thrifty", seconds=180)
