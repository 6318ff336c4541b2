import json
import os
import subprocess
from pathlib import Path

import pytest

from dev.cluster.errors import ClusterError
from dev.cluster.processes import Service, Supervisor, start_time

SLEEP = Service("sleeper", ("/bin/sleep", "60"))


def test_started_process_is_found_and_stopped(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)

    assert supervisor.ensure(SLEEP)
    pid = supervisor.pid("sleeper")
    assert pid is not None
    assert not supervisor.ensure(SLEEP)
    assert Supervisor(tmp_path).pid("sleeper") == pid

    supervisor.stop("sleeper")
    assert start_time(pid) is None
    assert supervisor.names() == []


def test_changed_service_is_restarted(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.ensure(SLEEP)
    before = supervisor.pid("sleeper")

    assert supervisor.ensure(Service("sleeper", ("/bin/sleep", "61")))
    assert supervisor.pid("sleeper") != before
    supervisor.stop("sleeper")


def test_killed_process_is_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.ensure(SLEEP)
    before = supervisor.pid("sleeper")
    assert before is not None
    os.kill(before, 9)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)

    assert supervisor.ensure(SLEEP)
    assert supervisor.pid("sleeper") not in (None, before)
    supervisor.stop("sleeper")


def test_pid_that_was_given_away_is_never_killed(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        started = start_time(stranger.pid)
        assert started is not None
        record = {"pid": stranger.pid, "started": started - 1, "fingerprint": ""}
        supervisor.records.mkdir()
        (supervisor.records / "sleeper.json").write_text(json.dumps(record))

        assert supervisor.pid("sleeper") is None
        supervisor.stop("sleeper")

        assert stranger.poll() is None
        stranger.kill()


def test_started_process_holds_nothing_of_who_started_it(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        supervisor.ensure(SLEEP)
        # It may still be opening libraries, so that links come and go.
        links = os.listdir(f"/proc/{supervisor.pid('sleeper')}/fd")
        held = [_target(f"/proc/{supervisor.pid('sleeper')}/fd/{link}") for link in links]
    supervisor.stop("sleeper")
    assert str(tmp_path / "logs" / "sleeper.log") in held
    assert str(tmp_path / "lock") not in held


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def test_ended_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.ensure(Service("talker", ("/bin/sh", "-c", "echo Error: no such port; exit 1")))
    pid = supervisor.pid("talker")
    if pid is not None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(ClusterError, match="talker ended: Error: no such port"):
        supervisor.require("talker")
