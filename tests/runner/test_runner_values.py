"""Secrets and results, as a real kernel shows them."""

import json
import signal
import subprocess
from pathlib import Path

from pod import Pod, code

from labfunctions_operator.runner import courier

TOKEN = "hunter<2>&'friends/12"
INNER = "of-a-secret-named-whole"
TABLE = """\
from html import escape

class Table:
    def _repr_html_(self):
        return f"<table><tr><td>{escape(token, quote=False)}</td></tr></table>"

    def _repr_mimebundle_(self, **kwargs):
        return {"application/json": {token: [token]}, "text/html": self._repr_html_()}

Table()"""
RESULT = "display({'application/vnd.labfunctions.result+json': %s}, raw=True)"


def test_no_secret_leaves_the_container(pod: Pod) -> None:
    pod.environment |= {"TOKEN": TOKEN, "WHOLE": INNER, "LABFUNCTIONS_MASK_WHOLE": INNER}
    pod.write(
        code("import os, sys, time\ntoken = os.environ['TOKEN']\nprint(token, [token])"),
        code("!env | grep -E 'TOKEN|WHOLE'"),
        # What is written past Python comes to the kernel's ear a moment later.
        code(
            """os.system('env | grep -E "TOKEN|WHOLE"'); os.write(2, os.environb[b'WHOLE'])
time.sleep(1)"""
        ),
        code("print(token[:9], end='', flush=True)\ntime.sleep(0.5)\nprint(token[9:])"),
        code(TABLE),
        code("shown = display(token, display_id='d')\nos.environ['WHOLE']"),
        code("shown.update(token + token)"),
        code(RESULT % "{'at': token, token: [1]}"),
        code("print(sorted(v for v in os.environ if v.startswith('LABFUNCTIONS_MASK')))"),
        code("raise ValueError('the token is ' + token)"),
    )
    ended = pod.run({"mask": ["TOKEN", "ABSENT"]})
    assert (ended.code, ended.result["reason"]) == (1, "NotebookError")
    for path in [*ended.out.iterdir(), pod.root / "termination-log"]:
        assert_clean(path.read_text())
    assert_clean(ended.log)
    cells = [c for c in ended.notebook["cells"] if c["cell_type"] == "code"]
    shown = [json.dumps(cell["outputs"]) for cell in cells]
    # The first cell is the injected one.
    assert r"[masked] [\"[masked]\"]" in shown[1]
    assert "TOKEN=[masked]" in shown[2]
    assert "WHOLE=[masked]" in shown[2]
    assert "TOKEN=[masked]" in shown[3]
    assert '"[masked]\\n"' in shown[4]
    assert "<td>[masked]</td>" in shown[5]
    assert '{"[masked]": ["[masked]"]}' in shown[5]
    assert "'[masked]'" in shown[6]
    assert "[masked][masked]" in shown[6]
    assert "[]" in shown[9]
    assert "ValueError: [masked]" not in shown[10]
    assert "the token is [masked]" in shown[10]
    assert ended.result["exception"]["message"] == "the token is [masked]"
    assert ended.result["message"].endswith("raised ValueError: the token is [masked]")
    assert ended.result["results"] == {"at": "[masked]", "[masked]": [1]}
    assert "TCP without encryption" not in ended.log


def assert_clean(text: str) -> None:
    for part in ("hunter", "friends", "of-a-secret"):
        assert part not in text


def test_a_runner_that_is_killed_has_saved_no_part_of_a_secret(pod: Pod) -> None:
    pod.environment["TOKEN"] = TOKEN
    pod.write(
        code("import os, time\nprint('begun', os.environ['TOKEN'][:9])"),
        code("print('far', os.environ['TOKEN'][:12], end='', flush=True)\ntime.sleep(60)"),
    )

    def kill(process: subprocess.Popen[str]) -> None:
        pod.wait_for(lambda: "far" in pod.saved())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [process.pid, *map(int, children)]:
            subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=True)

    ended = pod.run({"mask": ["TOKEN"]}, during=kill)
    log = pod.root / "termination-log"
    courier.Courier(courier.Config({}, None, 30), pod.root, log).settle()
    assert "begun hunter<2>" in ended.text(1)
    assert ended.text(2).startswith("far [masked]")


def test_results_are_in_both_places_if_they_fit(pod: Pod) -> None:
    pod.write(
        code(RESULT % "{'accuracy': 0.5, 'classes': ['a', 'ü'], 'big': 2**53}"),
        code(RESULT % "[1, 2]"),
        code(RESULT % "{'accuracy': 0.98, 'none': None}"),
    )
    ended = pod.run()
    assert ended.code == 0
    want = {"accuracy": 0.98, "classes": ["a", "ü"], "big": 2**53, "none": None}
    assert ended.result["results"] == ended.message["results"] == want
    assert ended.result["message"] == ended.message["message"]
    assert ended.result["message"].startswith("all 3 cells completed; a displayed result was ign")


def test_results_that_are_too_large_and_of_a_run_that_fails(pod: Pod) -> None:
    die = "import os; os.kill(os.getpid(), 9)"
    pod.write(code(RESULT % "{'rows': list(range(2000))}"), code(die))
    ended = pod.run()
    assert ended.result["reason"] == "KernelDied"
    assert ended.result["results"] == {"rows": list(range(2000))}
    assert ended.message["results"] is None
    assert ended.message["resultsBytes"] == len(json.dumps(ended.result["results"]))
