"""What the log of the notebook's container shows, and when."""

import os
import threading
import time

import pytest
from executions import stream

from labfunctions_operator.runner.notebook_run.console import Console
from labfunctions_operator.runner.notebook_run.mask import Mask


@pytest.fixture
def console() -> Console:
    return Console(Mask(["tok-123", "abab"]))


def test_the_log_holds_back_what_may_become_a_secret(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    console.show(stream("a tok"))
    assert capfd.readouterr().out == "a "
    console.show(stream("-12"))
    assert capfd.readouterr().out == ""
    console.show(stream("3 b\n"))
    assert capfd.readouterr().out == "[masked] b\n"


def test_the_log_shows_what_did_not_become_a_secret(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    console.show(stream("a tok"))
    console.release()
    assert capfd.readouterr().out == "a tok"
    console.show(stream(" tok-"))
    console.show(stream("warned\n", "stderr"))
    assert capfd.readouterr() == (" tok-", "warned\n")
    console.show(stream("x t"))
    console.say("[2/3] tok-123")
    assert capfd.readouterr().out == "x t\n[2/3] [masked]\n"
    console.show(stream("xabab"))
    assert capfd.readouterr().out == "x[masked]"


def test_the_log_of_displays_and_errors(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    console.show({"output_type": "display_data", "data": {"text/plain": "tok-123"}})
    console.show({"output_type": "display_data", "data": {"image/png": "xx"}})
    console.show({"output_type": "error", "traceback": ["\x1b[31mtok-\x1b[0m123", "end"]})
    assert capfd.readouterr().out == "[masked]\n[masked]\nend\n"


def test_the_log_of_what_the_kernel_prints_past_its_client(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, kernels = os.pipe()
    console.follow(ours)
    os.write(kernels, b"W: Kernel is running over TCP without encryption. All\n")
    os.write(kernels, b"tok-")
    os.write(kernels, b"123 \xff\nlast")
    os.close(kernels)
    console.close("Succeeded: tok-123")
    assert capfd.readouterr().out == "[masked] \ufffd\nlast\nSucceeded: [masked]\n"


def test_a_process_that_is_left_behind_delays_the_end_little_and_prints_no_more(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, kernels = os.pipe()
    console.follow(ours)
    started = time.monotonic()
    console.close("Succeeded: ")
    assert time.monotonic() - started < 30
    os.write(kernels, b"late\n")
    os.close(kernels)
    thread = console.kernel
    assert isinstance(thread, threading.Thread)
    thread.join(timeout=2)
    assert not thread.is_alive()
    assert capfd.readouterr().out == "Succeeded: \n"
