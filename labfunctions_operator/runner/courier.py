"""Takes what the runner leaves in the pod to the store, whatever becomes of the runner.

Runs as a sidecar of the notebook's container, which sees none of its URLs. It puts the runner in
place, uploads the notebook whenever it was saved anew, and, once the pod ends, uploads the last
state of everything, for as long as the pod's grace period lets it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labfunctions_operator.runner import archive, progress
from labfunctions_operator.runner.config import Backoff, Config
from labfunctions_operator.runner.notebook_run.cell_state import settle
from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.notebook import load_notebook
from labfunctions_operator.runner.notebook_run.pod import write_atomically
from labfunctions_operator.runner.page import render
from labfunctions_operator.runner.transfer import Expired, Outage, Receipt, Refusal, post, put

NOTEBOOK, RESULT, HTML = "notebook.ipynb", "result.json", "notebook.html"
PROGRESS = "progress.json"
TICK_SECONDS = 0.5
# The pod's grace period is 600 s, of which the runner may take 20.
FINAL_SECONDS = 570.0
# A store that refuses new URLs, too, refuses for another reason than their age.
RENEWAL_SECONDS = 300.0
INTERRUPTED = "the pod ended before the last upload was done"


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def install(root: Path) -> None:
    """Puts the runner where the notebook's container finds it, and only then says so."""
    (root / "out").mkdir(parents=True, exist_ok=True)
    archive.install(root / "bin")
    (root / "ready").touch()


def version_of(path: Path) -> tuple[int, int, int] | None:
    """Differs whenever the file was written anew; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


@dataclass
class Courier:
    """The uploads of one pod and what came of them."""

    config: Config
    root: Path
    termination_log: Path
    stopping: bool = False
    receipts: dict[str, Receipt] = field(default_factory=dict)
    uploaded: tuple[int, int, int] | None = None
    error: str | None = None
    backoff: Backoff = field(default_factory=Backoff)
    next_checkpoint: float = 0.0
    claim_backoff: Backoff = field(default_factory=Backoff)
    next_claim: float = 0.0
    next_renewal: float = 0.0

    @property
    def out(self) -> Path:
        """Where the runner saves."""
        return self.root / "out"

    def stop(self) -> None:
        """The pod is ending; safe in a signal handler."""
        self.stopping = True

    def run(self) -> int:
        """Serves until the pod ends; returns the exit code."""
        install(self.root)
        say("the runner is in place; waiting for the notebook")
        self.start_reports()
        while not self.stopping:
            self.claim(time.monotonic())
            self.checkpoint(time.monotonic())
            time.sleep(TICK_SECONDS)
        say("the pod ends: uploading for the last time")
        self.finish(deadline=time.monotonic() + FINAL_SECONDS)
        return 1 if self.error else 0

    def start_reports(self) -> None:
        """Reports progress from now on, if it is known where to."""
        if self.config.report:
            where = (self.config.report, self.out / PROGRESS, lambda: self.stopping)
            threading.Thread(target=progress.follow, args=where, daemon=True).start()

    def claim(self, now: float) -> str | None:
        """Asks the operator what this Job may do, if its turn has come; returns what went wrong.

        The operator may be away, or may not have seen the Job yet.
        """
        if self.config.claim is None or now < self.next_claim:
            return None
        try:
            self.ask(self.config.claim, {"job": self.config.job})
        except (Refusal, Outage) as error:
            self.next_claim = now + self.claim_backoff.next()
            problem = f"the operator did not say where the results go: {error}"
            say(f"{problem}; asking again in {self.next_claim - now:g} s")
            return problem
        self.start_reports()
        return None

    def await_claim(self, deadline: float) -> str | None:
        """Asks until the operator answers or no time is left; returns what went wrong."""
        self.next_claim = 0.0
        while True:
            problem = self.claim(time.monotonic())
            if problem is None or self.next_claim > deadline:
                return problem
            time.sleep(max(0.0, self.next_claim - time.monotonic()))

    def ask(self, url: str, body: dict[str, Any]) -> None:
        """Lets the operator say what is to be done; raises Refusal or Outage."""
        answer = post(url, body)
        try:
            self.config = Config.parse(answer)
        except (ValueError, KeyError, TypeError, AttributeError):
            # Of the answer nothing is told: it holds credentials.
            raise Outage("its answer cannot be read") from None

    def send(self, name: str, path: Path) -> Receipt:
        """Uploads one file, to another URL if the store does not take the one that is known.

        Raises what `put` does; an operator that cannot be asked is an outage like any other.
        """
        try:
            return put(self.config.uploads[name], path)
        except Expired as expired:
            self.renew(expired)
        return put(self.config.uploads[name], path)

    def renew(self, expired: Expired) -> None:
        """Asks the operator for URLs in place of those that the store takes no longer."""
        if self.config.renew is None or time.monotonic() < self.next_renewal:
            raise expired
        try:
            self.ask(self.config.renew, {})
        except Outage as outage:
            raise Outage(f"{expired}; no other URL was signed: {outage}") from None
        except Refusal as refusal:
            self.next_renewal = time.monotonic() + RENEWAL_SECONDS
            raise Refusal(f"{expired}; no other URL was signed: {refusal}") from None
        self.next_renewal = time.monotonic() + RENEWAL_SECONDS
        say(f"{expired}: the operator has signed other URLs")

    def checkpoint(self, now: float) -> None:
        """Uploads the notebook if it was saved anew and its turn has come; tries once."""
        path = self.out / NOTEBOOK
        version = version_of(path)
        if self.config.claim or now < self.next_checkpoint or version in (None, self.uploaded):
            return
        try:
            self.receipts[NOTEBOOK] = self.send(NOTEBOOK, path)
        except (Refusal, Outage, OSError) as error:
            delay = self.backoff.next() if isinstance(error, Outage) else 0.0
            self.next_checkpoint = now + (delay or self.config.checkpoint_seconds)
            say(f"{NOTEBOOK}: {error}; trying again in {self.next_checkpoint - now:g} s")
            return
        self.uploaded = version
        self.backoff.reset()
        self.next_checkpoint = now + self.config.checkpoint_seconds
        # For the operator, should this process be killed without a word.
        self.write_account(INTERRUPTED)

    def finish(self, deadline: float) -> None:
        """Uploads the last state of everything, and leaves the account of it at each step."""
        self.write_account(INTERRUPTED)
        saved, judged = ((self.out / name).exists() for name in (NOTEBOOK, RESULT))
        if saved and not judged:
            self.settle()
        if self.config.claim and (saved or judged):
            self.error = self.await_claim(deadline)
            if self.error:
                self.write_account(self.error)
                return
        if saved and not judged:
            self.report_once()
        if saved and version_of(self.out / NOTEBOOK) != self.uploaded:
            self.error = self.deliver(NOTEBOOK, self.out / NOTEBOOK, deadline)
        if judged:
            problem = self.deliver(RESULT, self.out / RESULT, deadline)
            self.error = self.error or problem
        if not saved and not judged:
            self.error = "nothing was saved, so nothing was uploaded"
            say(self.error)
        self.write_account(self.error)
        if saved and not self.error and HTML in self.config.uploads:
            self.deliver_html(deadline)
            self.write_account(self.error)

    def settle(self) -> None:
        """Makes the notebook of a runner that was killed tell the truth."""
        path = self.out / NOTEBOOK
        try:
            notebook = load_notebook(path)
            message = "the container ended without a verdict"
            settle(notebook, reason="Interrupted", message=message)
            write_atomically(path, json.dumps(notebook, indent=1))
        except (Refused, OSError, ValueError, AttributeError) as error:
            say(f"{NOTEBOOK} is uploaded as it is: {error}")

    def deliver(self, name: str, path: Path, deadline: float) -> str | None:
        """Uploads one file, through any outage, until the deadline; returns what went wrong."""
        backoff = Backoff()
        while True:
            try:
                self.receipts[name] = self.send(name, path)
                say(f"{name}: uploaded, {self.receipts[name].bytes} bytes")
                return None
            except Outage as outage:
                delay = backoff.next()
                problem = f"{name}: {outage}"
                if time.monotonic() + delay > deadline:
                    problem = f"{problem}; no time is left to try again"
                    say(problem)
                    return problem
                say(f"{problem}; trying again in {delay:g} s")
                time.sleep(delay)
            except (Refusal, OSError, KeyError) as error:
                problem = f"{name} could not be uploaded: {error}"
                say(problem)
                return problem

    def deliver_html(self, deadline: float) -> None:
        """Renders and uploads the page; its failure is only noted."""
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, HTML)
            try:
                render(self.out / NOTEBOOK, page)
            except (ValueError, OSError, subprocess.SubprocessError) as problem:
                say(f"{HTML} was not rendered: {problem}")
                return
            self.deliver(HTML, page, deadline)

    def write_account(self, error: str | None) -> None:
        """Leaves what was uploaded in the container's termination message."""
        uploads = {name: asdict(receipt) for name, receipt in self.receipts.items()}
        account = json.dumps({"uploads": uploads, "error": error and error[:500]})
        try:
            self.termination_log.write_text(account, "ascii")
        except OSError as problem:
            say(f"the termination message could not be written: {problem}")

    def report_once(self) -> None:
        """Tells the operator how far a notebook came that is not there to say so itself."""
        reached = progress.read(self.out / PROGRESS)
        if self.config.report and reached is not None:
            progress.report(self.config.report, reached)


def main() -> int:
    """Serves the pod that the environment describes; returns the exit code."""
    root = Path(os.environ.get("LABFUNCTIONS_DIR", "/labfunctions"))
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    courier = Courier(Config({}, None, 30), root, log)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: courier.stop())
    try:
        courier.config = Config.parse(
            os.environ["COURIER_CONFIG"], os.environ.get("COURIER_JOB", "")
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        problem = f"COURIER_CONFIG cannot be read: {error!r}"
        say(problem)
        courier.write_account(problem)
        return 1
    return courier.run()


if __name__ == "__main__":
    sys.exit(main())
