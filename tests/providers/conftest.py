"""Real servers on loopback: git over http and ssh, and an S3 store."""

import contextlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.gitserver.server import Backend, make_server
from labfunctions_operator.providers.store import Store
from tests.providers.aws_servers import CREDENTIALS, Account, Front, serve_moto
from tests.providers.provider_servers import (
    HttpGit,
    HttpsGit,
    Repository,
    S3Server,
    SshGit,
    free_port,
    wait_for_port,
)


@pytest.fixture(scope="session")
def http_git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpGit]:
    root = tmp_path_factory.mktemp("git")
    tokens: dict[str, str] = {}
    backend = Backend(root, push_token="push-token", read_tokens=tokens)
    server = make_server(backend, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield HttpGit(root=root, server=server, read_tokens=tokens)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def https_git(http_git: HttpGit, tmp_path: Path) -> Iterator[HttpsGit]:
    """The same repositories behind a certificate that no public authority signed."""
    certificate, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    names = ["-subj", "/CN=git", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-nodes", "-keyout", key, "-out", certificate, "-days", "1"]
    subprocess.run([*made, *files, *names], check=True, capture_output=True)
    server = make_server(Backend(http_git.root, push_token=None, read_tokens={}), "127.0.0.1", 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    end = server.shutdown_request

    def say_goodbye(request: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):  # a client that distrusts us is gone already
            request.unwrap()
        end(request)

    server.shutdown_request = say_goodbye  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = server.server_address[1]
    yield HttpsGit(url=f"https://127.0.0.1:{port}", certificate=certificate.read_text())
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repository(http_git: HttpGit, tmp_path: Path) -> Repository:
    """A new, empty repository at the HTTP server."""
    name = f"{tmp_path.parent.name}-{tmp_path.name}.git"
    return Repository.create(http_git.root, name, http_git.url, tmp_path / "work")


@pytest.fixture(scope="session")
def ssh_git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshGit]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None:
        pytest.fail("sshd is missing: install the package openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd started by root insists on it
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
        subprocess.run(keygen, check=True)
    port = free_port()
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "AuthenticationMethods": "publickey",
        "AcceptEnv": "GIT_PROTOCOL",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    process = subprocess.Popen([sshd, "-D", "-e", "-f", "/dev/null", *options])
    wait_for_port(port, "sshd")
    host_key = (folder / "host.pub").read_text()
    yield SshGit(
        port=port,
        private_key=(folder / "user").read_text(),
        known_hosts=f"[127.0.0.1]:{port} {host_key}",
    )
    process.terminate()
    process.wait()


def _versitygw() -> Path:
    """Finds the S3 server on the PATH, or where the local cluster keeps what it has built."""
    found = shutil.which("versitygw")
    if found:
        return Path(found)
    caches = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    cache = Path(os.environ.get("LABFUNCTIONS_CACHE", Path(caches) / "labfunctions"))
    built = sorted(cache.glob("bin/versitygw-*/versitygw"))
    if not built:
        pytest.fail("versitygw is missing: `make cluster-up` builds it")
    return built[-1]


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    port = free_port()
    root = tmp_path / "s3"
    root.mkdir()
    server = S3Server(
        command=[_versitygw(), "--port", f"127.0.0.1:{port}", "--quiet", "posix", root],
        port=port,
        access_key="access",
        secret_key="s3cret-key",
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(s3_server: S3Server) -> Iterator[Store]:
    made = Store(
        endpoint=s3_server.url,
        region="us-east-1",
        bucket="results",
        prefix="some/prefix",
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )
    made.ensure_bucket()
    yield made
    made.close()


@pytest.fixture(scope="session")
def moto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An AWS account with little in it, at a port of its own process."""
    with serve_moto(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture(scope="session")
def account(moto_port: int) -> Iterator[Account]:
    account = Account(moto_port)
    yield account
    account.close()


@pytest.fixture
def front(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """What the operator takes for AWS, by the SDK's usual settings."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with Front(moto_port).serve() as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        yield front
