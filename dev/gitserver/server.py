"""Serves bare repositories over HTTP through `git http-backend`.

Anyone may read a repository unless a token is set for it; only the push token may write. A push to
a repository that does not exist creates it.
"""

import base64
import binascii
import hmac
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from http.client import HTTPMessage, parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_SERVICE = re.compile(r"/(?P<repository>[A-Za-z0-9][\w.-]*\.git)(?P<service>/[\w./-]+)")
_CHUNK = 2**16


class Backend:
    """The repositories and who may do what with them.

    Args:
        root: The folder of all bare repositories.
        push_token: The password that opens everything; without one nobody can push.
        read_tokens: The password for reading a repository, by the repository's name.
    """

    def __init__(
        self, root: Path, *, push_token: str | None, read_tokens: Mapping[str, str]
    ) -> None:
        self.root = root
        self._push_token = push_token
        self._read_tokens = read_tokens

    def allows(self, repository: str, password: str | None, *, push: bool) -> bool:
        """Compares the password with those that open the repository; some need none."""
        read_token = self._read_tokens.get(repository)
        if not push and read_token is None:
            return True
        accepted = [self._push_token] if push else [self._push_token, read_token]
        given = (password or "").encode()
        return any(token and hmac.compare_digest(token.encode(), given) for token in accepted)

    def create(self, repository: str) -> None:
        """Makes a bare repository that accepts pushes, unless it exists."""
        folder = self.root / repository
        if not (folder / "HEAD").exists():
            init = ["git", "init", "--bare", "--quiet", "--initial-branch=main", str(folder)]
            subprocess.run(init, check=True)
        accept = ["git", "-C", str(folder), "config", "http.receivepack", "true"]
        subprocess.run(accept, check=True)


class Handler(BaseHTTPRequestHandler):
    """Translates a request of git's smart HTTP protocol into a CGI call."""

    protocol_version = "HTTP/1.0"

    def __init__(self, backend: Backend, *arguments: object) -> None:
        self._backend = backend
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answers probes and the advertisement of refs."""
        if self.path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        else:
            self._serve()

    def do_POST(self) -> None:
        """Answers fetches and pushes."""
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        found = _SERVICE.fullmatch(url.path)
        if not found or ".." in url.path:
            self._answer(HTTPStatus.NOT_FOUND, b"no such repository\n")
            return
        push = "git-receive-pack" in (url.path + "?" + url.query)
        if not self._backend.allows(found["repository"], self._password(), push=push):
            self._answer(HTTPStatus.UNAUTHORIZED, b"wrong or missing token\n")
            return
        if push:
            self._backend.create(found["repository"])
        if not (self._backend.root / found["repository"]).is_dir():
            self._answer(HTTPStatus.NOT_FOUND, b"no such repository\n")
            return
        self._run_backend(self._environment(url.path, url.query))

    def _password(self) -> str | None:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            return base64.b64decode(encoded).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None

    def _environment(self, path: str, query: str) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._backend.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": "git",
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }

    def _run_backend(self, environment: Mapping[str, str]) -> None:
        with subprocess.Popen(
            ["git", "http-backend"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for chunk in self._body():
                    process.stdin.write(chunk)
                process.stdin.close()
                self._head(parse_headers(process.stdout))
                while chunk := process.stdout.read(_CHUNK):
                    self.wfile.write(chunk)
            except (BrokenPipeError, ConnectionResetError):
                process.kill()

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            yield from self._chunks()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0 and (piece := self.rfile.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def _head(self, headers: HTTPMessage) -> None:
        status = headers.get("Status", "200").split()[0]
        self.send_response(int(status))
        for name, value in headers.items():
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs a line for each request, but no probes."""
        if self.path != "/healthz":
            print(f"{self.client_address[0]} {format % args}", file=sys.stderr, flush=True)


def make_server(backend: Backend, host: str, port: int) -> ThreadingHTTPServer:
    """Binds the server; `serve_forever` starts it."""
    return ThreadingHTTPServer((host, port), partial(Handler, backend))


def main() -> None:
    """Runs the server as its environment says."""
    backend = Backend(
        Path(os.environ.get("GIT_ROOT", "/srv/git")),
        push_token=os.environ.get("PUSH_TOKEN"),
        read_tokens=json.loads(os.environ.get("READ_TOKENS", "{}")),
    )
    make_server(backend, "", 8080).serve_forever()


if __name__ == "__main__":
    main()
