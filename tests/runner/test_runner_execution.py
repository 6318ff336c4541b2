"""The runner as it runs in a pod: a process of its own, with a real kernel."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pod import Pod, code, markdown

from labfunctions_operator.runner import archive, courier

IGNORES_INTERRUPTS = """\
import time
print('before', flush=True)
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print('no', flush=True)
"""


def test_a_notebook_that_succeeds(pod: Pod) -> None:
    pod.write(
        markdown("# Title"),
        code("a = 1\nname = 'x'", "parameters"),
        markdown("## Work"),
        code("print('a is', a, NOW, SCHEDULED_AT, end='')\nname"),
        code("import sys; print('warned', file=sys.stderr)"),
    )
    ended = pod.run({"parameters": {"a": 5, "name": "ü"}})
    assert ended.code == 0
    assert ended.result["reason"] == "Succeeded"
    assert ended.result["message"] == "all 5 cells completed"
    assert ended.result["cell"] is None
    assert ended.result["progress"] == {
        "cell": 5,
        "cells": 5,
        "name": ended.result["progress"]["name"],
    }
    assert ended.result["versions"]["python"]
    assert ended.result["versions"]["kernel"].startswith("python3")
    assert "[4/5] Work\na is 5 2026-01-01T00:00:00Z None'ü'\n[5/5] " in ended.log
    assert "warned\n" in ended.log
    assert ended.states() == ["completed"] * 6
    assert "RUNNER_CONFIG" not in ended.log
    assert [p.name for p in ended.out.iterdir() if p.name.startswith(".")] == []


def test_every_value_arrives_as_it_was_given_and_braces_stay_braces(pod: Pod) -> None:
    parameters = {
        "text": "quote \" ' back\\slash {brace} {a} %s\n\ttab 🚀 \x00",
        "big": 2**63 - 1,
        "nan": float("nan"),
        "inf": -float("inf"),
        "none": None,
        "nested": {"k\"ey\n'{": [1, [True, None, {"ü": 1.5}]]},
        "integral": 3,
        "given_as_text": "-Infinity",
        "stays_text": "NaN",
    }
    source = (
        "text, big, none, nested = '', 0, None, {}\nnan: float = 0.0\ninf = 0.0\nintegral = 1"
        "\ngiven_as_text = 0.5\nstays_text = ''"
    )
    check = (
        "import json\nresult = {name: globals()[name] for name in "
        f"{list(parameters)!r}}}\nopen('got.json', 'w').write(json.dumps(result))"
    )
    name = pod.write(code(source, "parameters"), code(check), name="{text} {0}/-n {b}.ipynb")
    ended = pod.run({"notebook": name, "parameters": parameters})
    assert ended.code == 0
    want = {**parameters, "given_as_text": -float("inf")}
    assert repr(json.loads((pod.root / "got.json").read_text())) == repr(want)
    about = ended.notebook["metadata"]["papermill"]["parameters"]
    assert repr({name: about[name] for name in parameters}) == repr(parameters)


def test_an_error_names_the_cell_as_its_author_counts(pod: Pod) -> None:
    pod.write(
        markdown("# T"),
        code("x = 1", "parameters"),
        code("# why\n\nprint('so far', flush=True)\nraise ValueError('bad ü ' * 9000)"),
        code("never()"),
    )
    ended = pod.run()
    assert ended.code == 1
    assert ended.result["reason"] == "NotebookError"
    cell = {"index": 2, "id": "id2", "source": "print('so far', flush=True)"}
    assert ended.result["cell"] == cell
    assert ended.result["exception"]["name"] == "ValueError"
    assert ended.result["exception"]["message"].startswith("bad ü bad")
    assert "ValueError" in ended.log
    assert "\x1b[" not in ended.log
    executed = [c for c in ended.notebook["cells"] if "papermill" in c["metadata"]]
    assert [c["metadata"]["papermill"]["status"] for c in executed][-2:] == ["failed", "pending"]
    assert ended.notebook["metadata"]["labfunctions"]["reason"] == "NotebookError"


def test_a_notebook_without_parameters_counts_from_its_own_first_cell(pod: Pod) -> None:
    pod.write(code("1/0"))
    assert pod.run().result["cell"]["index"] == 0


def test_an_allowed_error_and_a_clean_exit_are_no_errors(pod: Pod) -> None:
    pod.write(code("1/0", "raises-exception"), code("import sys; sys.exit()"), code("never()"))
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (0, "Succeeded")
    assert ended.states() == ["completed", "completed", "completed", "pending"]


def test_a_kernel_that_is_killed_leaves_a_notebook_that_tells_the_truth(pod: Pod) -> None:
    kill = "import os\nprint('last words', flush=True)\nos.kill(os.getpid(), 9)"
    pod.write(code("x = 1"), code(kill), code("never()"), markdown("end"))
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (138, "KernelDied")
    assert "SIGKILL" in ended.result["message"]
    assert ended.result["cell"]["index"] == 1
    assert ended.states() == ["completed", "completed", "failed", "pending", "pending"]
    assert "KernelDied" in ended.text(2)
    assert ended.notebook["metadata"]["papermill"]["exception"] is True


def test_a_kernel_that_dies_before_it_answers(pod: Pod) -> None:
    specs = pod.root / "jupyter" / "kernels" / "broken"
    specs.mkdir(parents=True)
    argv = [sys.executable, "-c", "raise SystemExit(3)"]
    spec = {"argv": argv, "display_name": "Broken", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(spec))
    pod.environment["JUPYTER_PATH"] = str(pod.root / "jupyter")
    pod.write(code("x = 1"), kernelspec={"name": "broken", "display_name": "Broken"})
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (138, "KernelDied")
    assert ended.result["cell"] is None
    assert ended.states() == ["pending", "pending"]


def test_sigterm_saves_the_running_cell_and_ends_at_once(pod: Pod) -> None:
    pod.write(code("x = 1"), code("import time\nprint('begun')\ntime.sleep(60)"), code("never()"))
    ended = pod.run(during=pod.stop_when_saved("begun"))
    assert ended.seconds < 40
    assert (ended.code, ended.result["reason"]) == (143, "Cancelled")
    assert ended.result["cell"] == {"index": 1, "id": "id1", "source": "import time"}
    assert ended.states() == ["completed", "completed", "failed", "pending"]
    assert "begun" in ended.text(2)
    assert "KeyboardInterrupt" in ended.text(2)
    assert "Cancelled" in ended.text(2)


def test_sigterm_ends_a_cell_that_ignores_interrupts_within_its_time(pod: Pod) -> None:
    pod.write(code(IGNORES_INTERRUPTS), code("never()"))
    ended = pod.run(during=pod.stop_when_saved("before"))
    assert ended.seconds < 40
    assert (ended.code, ended.result["reason"]) == (143, "Cancelled")
    assert ended.states() == ["completed", "failed", "pending"]
    assert "before" in ended.text(1)
    assert "no" in ended.text(1)


def test_sigterm_before_the_kernel_starts(pod: Pod) -> None:
    pod.write(code("never()"))

    def stop(process: subprocess.Popen[str]) -> None:
        # The configuration is read after the handlers are installed.
        pod.wait_for((pod.root / "out").exists)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)

    ended = pod.run(during=stop)
    assert ended.seconds < 40
    assert (ended.code, ended.result["reason"]) == (143, "Cancelled")


def test_a_run_that_takes_too_long(pod: Pod) -> None:
    pod.write(code("import time\ntime.sleep(60)"))
    ended = pod.run({"timeoutSeconds": 12})
    assert ended.seconds < 40
    assert (ended.code, ended.result["reason"]) == (124, "TimedOut")
    assert "ran longer than 12 s, at cell 1 of 1" in ended.result["message"]


def test_a_cell_that_takes_too_long_even_if_it_swallows_the_interrupt(pod: Pod) -> None:
    swallow = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('ok')"
    pod.write(code("x = 1"), code(swallow), code("never()"))
    ended = pod.run({"cellTimeoutSeconds": 1})
    assert ended.seconds < 40
    assert (ended.code, ended.result["reason"]) == (124, "CellTimedOut")
    assert ended.result["cell"]["index"] == 1
    assert ended.states() == ["completed", "completed", "completed", "pending"]


def test_a_container_that_is_killed_leaves_what_the_courier_can_mend(pod: Pod) -> None:
    pod.write(code("x = 1"), code("import time\nprint('begun')\ntime.sleep(60)"), code("never()"))

    def kill(process: subprocess.Popen[str]) -> None:
        pod.wait_for(lambda: "begun" in pod.saved())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [process.pid, *map(int, children)]:
            os.kill(pid, signal.SIGKILL)

    ended = pod.run(during=kill)
    assert ended.code == -signal.SIGKILL
    assert not (pod.out / "result.json").exists()
    log = pod.root / "termination-log"
    courier.Courier(courier.Config({}, None, 30), pod.root, log).settle()
    assert ended.states() == ["completed", "completed", "failed", "pending"]
    assert "begun" in ended.text(2)


@pytest.mark.parametrize(
    ("parameters", "policy", "message"),
    [
        ({"n": "ten"}, "Strict", 'parameters.n: expected int, got str "ten"'),
        ({"m": 1}, "Strict", "parameters.m: the notebook declares no such parameter"),
        (
            {"n": None, "x y": 1},
            "Strict",
            "parameters.n: expected int, got null; parameters.x y",
        ),
        ({"n": None, "x y": 1}, "Permissive", "parameters.x y"),
    ],
)
def test_parameters_that_do_not_fit(
    pod: Pod, parameters: dict[str, Any], policy: str, message: str
) -> None:
    pod.write(code("n = 1", "parameters"))
    ended = pod.run({"parameters": parameters, "parametersPolicy": policy})
    assert (ended.code, ended.result["reason"]) == (64, "ParametersInvalid")
    assert message in ended.result["message"]
    assert not (pod.out / "notebook.ipynb").exists()


def test_a_permissive_run_takes_what_the_notebook_does_not_declare_or_not_so(pod: Pod) -> None:
    pod.write(
        code("alpha = 1\nn = 1", "parameters"), code("assert (alpha, n, extra) == (0.5, None, 3)")
    )
    parameters = {"alpha": 0.5, "n": None, "extra": 3}
    assert pod.run({"parameters": parameters, "parametersPolicy": "Permissive"}).code == 0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.ipynb", None, "NotebookNotFound"),
        ("n.ipynb", "not json", "NotebookInvalid"),
        ("n.ipynb", '{"a": 1}', "NotebookInvalid"),
        ("n.ipynb", '{"nbformat": 4, "cells": [{"source": "x"}]}', "NotebookInvalid"),
        ("out", None, "NotebookInvalid"),
    ],
)
def test_a_notebook_that_is_none(pod: Pod, name: str, content: str | None, reason: str) -> None:
    if content:
        (pod.root / name).write_text(content)
    ended = pod.run({"notebook": name})
    assert (ended.code, ended.result["reason"]) == (65, reason)
    assert name in ended.result["message"]


def test_a_kernel_that_the_image_lacks(pod: Pod) -> None:
    pod.write(code("x"), kernelspec={"name": "ir", "display_name": "R", "language": "R"})
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (65, "NotebookInvalid")
    assert "the kernel ir; the image has: python3" in ended.result["message"]
    digest = hashlib.sha256((pod.root / "n.ipynb").read_bytes()).hexdigest()
    assert ended.result["notebookSha256"] == ended.message["notebookSha256"] == digest


def test_a_python_kernel_of_the_authors_machine(pod: Pod) -> None:
    pod.write(
        code("x = 1"), kernelspec={"name": "env-x", "display_name": "X", "language": "python"}
    )
    ended = pod.run()
    assert ended.code == 0
    assert ended.result["versions"]["kernel"].startswith("python3 ")
    assert ended.log.startswith("the image has no kernel env-x: running on python3\n[1/1] x = 1")


def test_a_notebook_that_names_no_kernel_is_python(pod: Pod) -> None:
    pod.write(code("x = 1"), language_info={"name": "python"})
    assert pod.run().code == 0


def test_an_image_without_papermill(pod: Pod) -> None:
    pod.write(code("x = 1"))
    pod.python += ["-I", "-S"]
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (69, "RunnerMissing")
    assert "No module named 'papermill'" in ended.result["message"]


def test_the_kernel_knows_nothing_of_the_runner_s_modules(pod: Pod) -> None:
    source = """\
import os, sys
print([path for path in sys.path if "runner.pyz" in path or path.endswith("/bin")])
print(os.environ.get("PYTHONPATH"))"""
    pod.write(code(source))
    assert pod.run().text(1) == f"[]\n{os.environ.get('PYTHONPATH')}\n"


def test_a_notebook_that_takes_away_the_runner_s_file_changes_nothing(pod: Pod) -> None:
    pod.write(code(f"import os; os.remove({str(pod.runner)!r})"), code("1/0"))
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (1, "NotebookError")
    assert ended.result["versions"]["papermill"]


def test_a_configuration_that_cannot_be_read(pod: Pod) -> None:
    ended = pod.run([])
    assert (ended.code, ended.result["reason"]) == (70, "InternalError")
    assert "RUNNER_CONFIG cannot be read" in ended.result["message"]


def test_a_home_that_cannot_be_written(pod: Pod) -> None:
    pod.environment["HOME"] = "/nonexistent"
    pod.write(code("import os; assert os.access(os.environ['HOME'], os.W_OK)"))
    assert pod.run().code == 0


def test_a_notebook_that_takes_away_its_own_folder_is_told_why_it_failed(pod: Pod) -> None:
    pod.write(code("import os, shutil\nshutil.rmtree(os.environ['LABFUNCTIONS_DIR'] + '/out')"))
    ended = pod.run()
    assert (ended.code, ended.message["reason"]) == (70, "InternalError")
    assert "the notebook could not be saved: [Errno 2]" in ended.message["message"]


def test_output_of_a_silent_cell_is_saved_while_it_runs(pod: Pod) -> None:
    pod.write(code("import time\nprint('far'); time.sleep(0.2); print('along')\ntime.sleep(60)"))
    ended = pod.run(during=pod.stop_when_saved("along"))
    assert "far\nalong" in ended.text(1)


def test_the_page_shows_outputs_and_reads_no_file_for_its_author(pod: Pod) -> None:
    source = "from IPython.display import HTML; HTML('<b id=\"shown\">hi</b>')"
    (pod.root / "secret.png").write_bytes(b"secret")
    pod.write(markdown(f"![](secret.png) ![]({pod.root}/secret.png)"), code(source))
    ended = pod.run()
    pages = pod.root / "pages"
    pages.mkdir()
    courier.render(ended.out / "notebook.ipynb", pages / "notebook.html")
    page = (pages / "notebook.html").read_text()
    assert '<b id="shown">hi</b>' in page
    assert "c2VjcmV0" not in page


def test_a_notebook_that_cannot_be_rendered_is_said(pod: Pod) -> None:
    (pod.root / "bad.ipynb").write_text("{half")
    with pytest.raises(ValueError, match=r"\w"):
        courier.render(pod.root / "bad.ipynb", pod.root / "notebook.html")


def test_a_kernel_that_does_not_get_ready(pod: Pod, tmp_path: Path) -> None:
    spec = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)", "{connection_file}"]
    spec.write_text(json.dumps({"argv": sleeps, "display_name": "slow", "language": "python"}))
    pod.environment["JUPYTER_PATH"] = str(tmp_path / "share")
    sources = archive.sources()
    name = "labfunctions_operator/runner/notebook_run/kernels.py"
    sources[name] = sources[name].replace("START_SECONDS = 120", "START_SECONDS = 1")
    pod.runner.write_bytes(archive.zipped(sources))
    pod.write(code("never()"))
    ended = pod.run()
    assert (ended.code, ended.result["reason"]) == (138, "KernelDied")
    assert ended.result["message"] == "the kernel was not ready within 1 s"
    assert set(ended.states()) == {"pending"}
