"""Calls kubectl against the cluster that the environment names."""

import shutil
import subprocess

from dev.cluster.binaries import executable

NAMESPACE = "labfunctions-demo"


def command(*arguments: str) -> list[str]:
    """The words of a kubectl command in the server's namespace."""
    program = shutil.which("kubectl") or str(executable("kubectl"))
    return [program, "--namespace", NAMESPACE, *arguments]


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Runs kubectl and returns what it printed; its complaints go to the terminal."""
    done = subprocess.run(
        command(*arguments), input=text, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
