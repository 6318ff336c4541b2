"""The command line of the local cluster."""

import argparse
import shlex
import sys
from collections.abc import Callable

from dev.cluster import binaries, local, ourimages
from dev.cluster.cache import cluster_root
from dev.cluster.errors import ClusterError
from dev.cluster.packages import TEST_PACKAGES, ensure_packages
from dev.cluster.progress import say
from dev.cluster.versions import components


def _up(_: argparse.Namespace) -> int:
    kubeconfig = local.up()
    say(f"export KUBECONFIG={kubeconfig}")
    return 0


def _down(_: argparse.Namespace) -> int:
    local.down()
    return 0


def _status(_: argparse.Namespace) -> int:
    return 0 if local.status() else 1


def _binaries(options: argparse.Namespace) -> int:
    binaries.ensure(options.names or components())
    return 0


def _tools(_: argparse.Namespace) -> int:
    ensure_packages(TEST_PACKAGES)
    binaries.ensure(components())
    return 0


def _images(_: argparse.Namespace) -> int:
    for name, reference in sorted(ourimages.push_all().items()):
        say(f"{name}={reference}")
    return 0


def _env(_: argparse.Namespace) -> int:
    folders = dict.fromkeys(str(binaries.folder_of(c)) for c in components().values())
    say(f"export KUBECONFIG={shlex.quote(str(cluster_root() / 'kubeconfig'))}")
    say(f"export PATH={shlex.quote(':'.join(folders))}:$PATH")
    return 0


def main() -> int:
    """Run one command; a failure is one line."""
    parser = argparse.ArgumentParser(prog="python -m dev.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str) -> None:
        commands.add_parser(name, help=text).set_defaults(action=action)

    add("up", _up, "start what does not run")
    add("down", _down, "end the cluster and remove what it left")
    add("status", _status, "tell what runs")
    add("images", _images, "build and push the project's images")
    add("tools", _tools, "install and build what tests find on this machine")
    add("env", _env, "print the shell's settings for this cluster and its tools")
    build = commands.add_parser("binaries", help="build what is not in the cache")
    build.add_argument("names", nargs="*", help="components; all when omitted")
    build.set_defaults(action=_binaries)
    options = parser.parse_args()
    try:
        return int(options.action(options))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
