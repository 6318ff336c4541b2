"""build-image with a stand-in for buildctl: its arguments, waiting, stopping and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import build_image
import pytest

SCRIPT = Path(build_image.__file__)
IMAGE = {"IMAGE": "registry.example.com:5000/lab/demo", "TAG": "abc123"}
BUILDCTL = """#!/bin/sh
printf '%s\\n' "$@" > $STATE/arguments
case "$*" in
*"debug workers")
    if [ -e $STATE/down ]; then echo 'error: connection refused' >&2; exit 1; fi
    exit 0 ;;
esac
cp -r "$DOCKER_CONFIG" $STATE/docker
while [ $# -gt 0 ]; do
    [ "$1" = --metadata-file ] && metadata=$2
    shift
done
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "STATE": str(tmp_path),
        "BUILDKIT_HOST": "tcp://buildkitd.lf.svc:1234",
        **IMAGE,
    }


@pytest.fixture
def buildctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a buildctl on PATH that ends with these lines of shell."""

    def make(script: str) -> None:
        program = tmp_path / "bin" / "buildctl"
        program.parent.mkdir()
        program.write_text(BUILDCTL + script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def build(environ: dict[str, str], folder: Path, wait_seconds: float = 1) -> str:
    return build_image.build_image(
        environ,
        workspace=Path("/w"),
        tls=folder / "tls",
        registry_secret=folder / "registry-secret",
        wait_seconds=wait_seconds,
    )


SUCCEED = """echo '#1 building' >&2
echo '{"containerimage.digest": "sha256:feed"}' > "$metadata"
"""


def test_the_digest_comes_from_buildkit(
    environ: dict[str, str],
    buildctl: Callable[[str], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    buildctl(SUCCEED)

    assert build(environ, tmp_path) == "sha256:feed"
    assert "#1 building" in capsys.readouterr().out
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("--addr\ntcp://buildkitd.lf.svc:1234\nbuild\n--progress=plain\n")
    assert "\ndockerfile.v0\n" in arguments
    assert "\ncontext=/w/context\n" in arguments
    assert "\ndockerfile=/w/dockerfile\n" in arguments
    assert "\ntype=image,name=registry.example.com:5000/lab/demo:abc123,push=true\n" in arguments
    assert "cache" not in arguments


def test_registry_login_is_where_buildctl_looks(
    environ: dict[str, str], buildctl: Callable[[str], None], tmp_path: Path
) -> None:
    buildctl(SUCCEED)
    (tmp_path / "registry-secret").write_text('{"auths": {}}')

    build(environ, tmp_path)

    assert (tmp_path / "docker" / "config.json").read_text() == '{"auths": {}}'


def test_mutual_tls(tmp_path: Path) -> None:
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).touch()
    environ = {"BUILDKIT_HOST": "tcp://b:1", "BUILDKIT_TLS_SERVER_NAME": "buildkitd"}

    assert build_image.connection(environ, tls=tmp_path) == [
        *("--addr", "tcp://b:1"),
        *("--tlscacert", f"{tmp_path}/ca.crt"),
        *("--tlscert", f"{tmp_path}/tls.crt"),
        *("--tlskey", f"{tmp_path}/tls.key"),
        *("--tlsservername", "buildkitd"),
    ]


def test_insecure_registry_with_a_cache(tmp_path: Path) -> None:
    environ = IMAGE | {"REGISTRY_INSECURE": "true", "CACHE": "true"}
    name = "registry.example.com:5000/lab/demo"
    arguments = build_image.build_arguments(environ, metadata=tmp_path)

    assert f"type=image,name={name}:abc123,push=true,registry.insecure=true" in arguments
    cache = f"type=registry,ref={name}:buildcache,registry.insecure=true"
    assert arguments[-4:] == [
        *("--import-cache", cache),
        *("--export-cache", f"{cache},mode=max,ignore-error=true"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMAGE", "registry.example.com/a,push=false"),
        ("IMAGE", "registry.example.com/a:tag"),
        ("IMAGE", "--opt"),
        ("TAG", "a,b"),
        ("TAG", ""),
        ("TAG", "a" * 129),
    ],
)
def test_names_cannot_add_attributes(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(build_image.BuildFailed, match="is not"):
        build_image.build_arguments(IMAGE | {name: value}, metadata=tmp_path)


def test_a_daemon_that_never_answers(
    environ: dict[str, str], buildctl: Callable[[str], None], tmp_path: Path
) -> None:
    buildctl("")
    (tmp_path / "down").touch()

    with pytest.raises(build_image.BuildFailed, match=r"is not available: .*connection refused"):
        build(environ, tmp_path, wait_seconds=0.1)


def run_script(environ: dict[str, str], log: Path) -> subprocess.Popen[str]:
    code = f"import build_image, pathlib; build_image.main(log=pathlib.Path({str(log)!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=SCRIPT.parent,
        env=environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_success_ends_with_the_digest(
    environ: dict[str, str], buildctl: Callable[[str], None], tmp_path: Path
) -> None:
    buildctl(SUCCEED)

    with run_script(environ, tmp_path / "log") as process:
        output, _ = process.communicate()

    assert process.returncode == 0, output
    assert json.loads((tmp_path / "log").read_text()) == {"digest": "sha256:feed"}


def test_failure_ends_with_the_reason(
    environ: dict[str, str], buildctl: Callable[[str], None], tmp_path: Path
) -> None:
    buildctl(
        "echo '#5 1.2 ERROR: No matching distribution found for https://a:b@h/x'\n"
        "echo 'error: failed to solve: exit code: 1'\nexit 1\n"
    )

    with run_script(environ, tmp_path / "log") as process:
        output, _ = process.communicate()

    assert process.returncode == 1
    error = json.loads((tmp_path / "log").read_text())["error"]
    assert "no matching distribution found for https://***@h/x" in error
    assert "a:b" not in output


def test_sigterm_stops_the_build(
    environ: dict[str, str], buildctl: Callable[[str], None], tmp_path: Path
) -> None:
    buildctl("echo started; exec sleep 60\n")

    with run_script(environ, tmp_path / "log") as process:
        assert process.stdout is not None
        while "started" not in process.stdout.readline():
            pass
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1

    assert time.monotonic() - begun < 30
    assert "stopped" in json.loads((tmp_path / "log").read_text())["error"]
