"""What a person reads of a failed build. The samples are BuildKit's own output, shortened."""

import json
from pathlib import Path

import build_errors
import pytest
import termination

PIP = """\
#5 [2/3] RUN python3 -m venv /v
#5 DONE 2.1s

#6 [3/3] RUN /v/bin/pip install -r r.txt
#6 0.364 ERROR: Could not find a version that satisfies the requirement nope==9.9 (from: 1)
#6 0.364 ERROR: No matching distribution found for nope==9.9
#6 ERROR: process "/bin/sh -c /v/bin/pip install -r r.txt" did not complete successfully: \
exit code: 1
------
 > [3/3] RUN /v/bin/pip install -r r.txt:
0.364 ERROR: Could not find a version that satisfies the requirement nope==9.9 (from: 1)
0.364 ERROR: No matching distribution found for nope==9.9
------
Dockerfile:3
--------------------
   1 |     FROM python:3.11-slim
   3 | >>> RUN /v/bin/pip install -r r.txt
--------------------
error: failed to solve: process "/bin/sh -c /v/bin/pip install -r r.txt" did not complete \
successfully: exit code: 1"""

COMMAND = """\
#5 [2/2] RUN echo one && exit 3
#5 0.051 one
#5 ERROR: process "/bin/sh -c echo one && exit 3" did not complete successfully: exit code: 3
------
 > [2/2] RUN echo one && exit 3:
0.051 one
------
Dockerfile:2
error: failed to solve: process "/bin/sh -c echo one && exit 3" did not complete successfully: \
exit code: 3"""

COPY = """\
#6 [2/2] COPY requirements.txt /app/
#6 ERROR: failed to calculate checksum of ref abc::def: "/requirements.txt": not found
------
 > [2/2] COPY requirements.txt /app/:
------
error: failed to solve: failed to compute cache key: failed to calculate checksum of ref abc::def: \
"/requirements.txt": not found"""

PARSE = """\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
Dockerfile:2
--------------------
   2 | >>> RUNN echo hi
--------------------
error: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN"""


def whole(final: str) -> str:
    return f"#6 [x]\n#6 ERROR: {final}\n------\n > [x] y:\n------\nerror: failed to solve: {final}"


@pytest.mark.parametrize(
    ("output", "first_line"),
    [
        (PIP, "requirements do not resolve: no matching distribution found for nope==9.9"),
        (COPY, "/requirements.txt is not in the source"),
        (PARSE, "the Dockerfile is not valid"),
        (COMMAND, "step [2/2] RUN echo one && exit 3 failed, exit code: 3"),
        (
            "#6 0.4 ERROR: Cannot install a==1 and b==2 because these package versions have "
            "conflicting dependencies.",
            "requirements do not resolve: a==1 and b==2 are in conflict",
        ),
        (
            "#6 0.2 ERROR: Invalid requirement: 'pandas=2.0' (from line 1 of r.txt)",
            "requirements are not valid: 'pandas=2.0' (from line 1 of r.txt)",
        ),
        ("#6 1.1 E: Unable to locate package libnope", "there is no Debian package libnope"),
        (
            "#6 0.2 WARNING: Retrying (Retry(total=0, connect=None)) after connection broken\n"
            "#6 0.3 ERROR: No matching distribution found for six",
            "the package index cannot be reached",
        ),
        (
            whole("h/x:1: failed to resolve source metadata for h/x:1: h/x:1: not found"),
            "image h/x:1 does not exist",
        ),
        (
            whole(
                "h/x:1: failed to resolve source metadata for h/x:1: pull access denied, "
                "repository does not exist or may require authorization"
            ),
            "image h/x:1 does not exist or needs credentials",
        ),
        (
            whole("failed to push h/x:1: unexpected status from HEAD request: 401 Unauthorized"),
            "the registry refused the credentials",
        ),
        (
            whole(
                'failed to push h/x:1: failed to do request: Head "http://h/v2/": dial tcp: '
                "connect: connection refused"
            ),
            "the registry cannot be reached",
        ),
        (whole("write /x: no space left on device"), "the builder's disk is full"),
        ("error: something new", "something new"),
        ("", "the build failed without a message"),
    ],
)
def test_the_first_line_says_what_to_change(output: str, first_line: str) -> None:
    assert build_errors.explain(output.splitlines()).splitlines()[0] == first_line


def test_the_step_and_its_output_follow() -> None:
    assert build_errors.explain(PIP.splitlines()).splitlines()[1:] == [
        "step [3/3] RUN /v/bin/pip install -r r.txt",
        "ERROR: Could not find a version that satisfies the requirement nope==9.9 (from: 1)",
        "ERROR: No matching distribution found for nope==9.9",
    ]


def test_progress_is_left_out() -> None:
    progress = "0.1 Collecting six\n0.2   Downloading six.whl\n0.3      ━━━ 1 MB\n0.4 \n0.5 said"

    assert build_errors.explain(COMMAND.replace("0.051 one", progress).splitlines()).splitlines()[
        1:
    ] == ["said"]


def test_what_other_steps_printed_is_no_reason() -> None:
    noise = "#4 0.1 E: Unable to locate package optional\n"

    assert "optional" not in build_errors.explain((noise + COMMAND).splitlines())


def test_a_long_output_is_cut_to_two_kilobytes() -> None:
    output = COMMAND.replace("0.051 one", "\n".join(["ü" * 2000] * 20))

    assert 1900 < len(build_errors.explain(output.splitlines()).encode()) <= 2048


@pytest.mark.parametrize("text", ['"\\' * 4000, "ü" * 4000, "\n" * 4000, "short"])
def test_a_termination_message_is_whole_json(tmp_path: Path, text: str) -> None:
    termination.write(tmp_path / "log", error=text)
    raw = (tmp_path / "log").read_bytes()

    assert len(raw) <= 4096
    assert json.loads(raw)["error"][:5] == text[:5]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("get https://user:pa:ss@h/x", "get https://***@h/x"),
        ("get https://token@h/x", "get https://***@h/x"),
        ("get ssh://git@h/x", "get ssh://git@h/x"),
        ("mail a@b.c, see https://h/x@y", "mail a@b.c, see https://h/x@y"),
        ("\x1b[31mred\x1b[0m \x07", "red "),
        ("the word hunter2 is secret", "the word *** is secret"),
    ],
)
def test_credentials_and_control_sequences_are_removed(text: str, cleaned: str) -> None:
    assert termination.clean(text, secrets=("hunter2",)) == cleaned
