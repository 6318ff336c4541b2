"""The scripts of the builder image, and git servers for them to fetch from."""

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "images" / "builder"))

GIT_ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ada@example.com" for who in ("AUTHOR", "COMMITTER")},
}


@dataclass
class Repository:
    """A repository with two commits on main, that is also what a server serves."""

    work: Path
    bare: Path
    first: str = ""
    last: str = ""

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.work,
            env=GIT_ENV,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.git("push", "--quiet", "--force", str(self.bare), "HEAD:refs/heads/main")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "work", tmp_path / "served" / "team" / "demo.git")
    made.work.mkdir()
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("init", "--quiet", "--bare", "--initial-branch=main", str(made.bare))
    (made.work / "app").mkdir()
    (made.work / "app" / "code.py").write_text("print(1)\n")
    (made.work / "README.md").write_text("outside of app\n")
    made.first = made.commit("one")
    (made.work / "app" / "code.py").write_text("print(2)\n")
    made.last = made.commit("two")
    return made


@dataclass
class GitServer:
    """What a test may set on the server, and what the server saw."""

    url: str = ""
    login: tuple[str, str] | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    single_commits: bool = True
    authorizations: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    """Hands every request to `git http-backend`, as a web server would by CGI."""

    root: ClassVar[Path]
    settings: ClassVar[GitServer]

    def do_GET(self) -> None:
        if given := self.headers.get("Authorization"):
            self.settings.authorizations.append(given)
        if moved := [p for p in self.settings.redirects if self.path.startswith(p)]:
            self.send_response(302)
            target = self.settings.redirects[moved[0]] + self.path.removeprefix(moved[0])
            self.send_header("Location", target)
            self.end_headers()
        elif not self._allowed():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
        else:
            self._serve()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _allowed(self) -> bool:
        if self.settings.login is None:
            return True
        expected = base64.b64encode(":".join(self.settings.login).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        env = GIT_ENV | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        if self.settings.single_commits:
            # Version 2 of git's protocol gives any commit, version 0 the tips of branches only.
            env["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def git_server(repository: Repository) -> Iterator[GitServer]:
    settings = GitServer()
    handler = type(
        "Handler", (_Handler,), {"root": repository.bare.parents[1], "settings": settings}
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        settings.url = f"http://127.0.0.1:{server.server_port}/team/demo.git"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield settings
        server.shutdown()
        thread.join()
