"""The log of the notebook's container."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from labfunctions_operator.runner.notebook_run.mask import Mask
from labfunctions_operator.runner.notebook_run.text import joined, strip_ansi

# A kernel says so at every start; its sockets never leave the pod.
KERNEL_NOTICE = "Kernel is running over TCP without encryption"


class Console:
    """The container's log: the notebook's output, and between it lines of our own, all masked.

    What may be the begin of a secret is held back until it is known how it goes on.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.lock = threading.Lock()
        self.stream: TextIO = sys.stdout
        self.held = ""
        self.midline = False
        self.kernel: threading.Thread | None = None
        self.closed = False

    def say(self, line: str) -> None:
        """Prints a line of our own."""
        with self.lock:
            self._release()
            self._write("\n" * self.midline + line + "\n", sys.stdout)

    def show(self, output: dict[str, Any]) -> None:
        """Prints a cell's output as it comes."""
        kind = output["output_type"]
        text = joined(output.get("text") or (output.get("data") or {}).get("text/plain") or "")
        if kind == "error":
            text = strip_ansi("\n".join(output["traceback"]))
        if kind != "stream" and text:
            text += "\n"
        stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
        with self.lock:
            if stream is not self.stream:
                self._release()
            self.stream = stream
            text, self.held = self.held + text, ""
            if kind == "stream":
                text, self.held = self.mask.split(text)
            self._write(text, stream)

    def release(self) -> None:
        """Prints what was held back: the cell has ended."""
        with self.lock:
            self._release()

    def follow(self, descriptor: int) -> None:
        """Prints what the kernel's process writes past its client, from now on."""
        self.kernel = threading.Thread(target=self._follow, args=(descriptor,), daemon=True)
        self.kernel.start()

    def close(self, line: str) -> None:
        """Prints a last line after the kernel's: a thread that printed on would spoil the exit."""
        if self.kernel:
            # A process that the notebook left behind may hold the pipe for ever.
            self.kernel.join(timeout=1)
        self.say(line)
        with self.lock:
            self.closed = True

    def _follow(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8", errors="replace", newline="") as lines:
            for line in lines:
                if KERNEL_NOTICE not in line:
                    with self.lock:
                        self._release()
                        self._write(line, sys.stdout)

    def _release(self) -> None:
        self._write(self.held, self.stream)
        self.held = ""

    def _write(self, text: str, stream: TextIO) -> None:
        if text and not self.closed:
            stream.write(self.mask.text(text))
            stream.flush()
            self.midline = not text.endswith("\n")
