"""What a notebook can see and do, what its courier may, and what the operator may not."""

import base64
import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import urllib3

from dev.cluster.errors import ClusterError
from dev.gitserver.credentials import PRIVATE_REPOSITORY, Credentials
from dev.install import NAMESPACE
from dev.storage import STORE

from .cluster import OPERATOR, Repository, Team
from .objects import Object, inline_run, notebook, printed, project, secret

# Prints everything that the notebook's process can read of its surroundings.
LOOK = notebook(
    """\
import json, os, pathlib, socket

def read(path):
    try:
        return path.read_bytes()[:100_000].decode("latin-1")
    except OSError:
        return ""

roots = ["/labfunctions", "/tmp", "/run", "/var/run", "/etc", "/root", "/home", "/app"]
files = [
    pathlib.Path(folder, name)
    for root in roots
    for folder, _, names in os.walk(root)
    for name in names
]
texts = {str(p): read(p) for p in files if p.is_file() and not p.is_symlink()}
processes = [p for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()]
print(json.dumps({
    "environment": dict(os.environ),
    "files": texts,
    "processes": {p.name: read(p / "cmdline") + read(p / "environ") for p in processes},
    "mounts": [line.split()[1] for line in read(pathlib.Path("/proc/self/mounts")).splitlines()],
    "user": [os.getuid(), os.getgid()],
}))"""
)


@pytest.fixture(scope="module")
def looked(
    new_team: Callable[..., Team], new_repository: Callable[[str], Repository]
) -> tuple[Team, Object]:
    """A team whose notebook, from a private repository, has looked around."""
    team = new_team()
    new_repository(PRIVATE_REPOSITORY).commit({"look.ipynb": LOOK}, "Look around")
    credentials = Credentials.load()
    assert credentials
    team.apply(
        secret("git", {"token": credentials.read_token}),
        project(repository=PRIVATE_REPOSITORY, secretRef={"name": "git"}),
        inline_run("look", "look.ipynb"),
    )
    return team, team.await_success("look")


@pytest.fixture(scope="module")
def seen(looked: tuple[Team, Object]) -> Object:
    team, run = looked
    found: Object = json.loads(printed(team.read_notebook(run)))
    return found


def courier_config(team: Team) -> Object:
    [courier] = team.pod("look")["spec"]["initContainers"]
    [text] = [e["value"] for e in courier["env"] if e["name"] == "COURIER_CONFIG"]
    config: Object = json.loads(text.replace("$$", "$"))
    return config


def test_a_notebook_sees_no_credentials(looked: tuple[Team, Object], seen: Object) -> None:
    team, _ = looked
    data = team.cluster.kubectl.get("secret", STORE, "-n", NAMESPACE)["data"]
    credentials = Credentials.load()
    assert credentials
    hidden = {
        "the store's key": base64.b64decode(data["secretAccessKey"]).decode(),
        "git's token": credentials.read_token,
        "a signed URL": "X-Amz-Signature",
        "the courier's URLs at the operator": "signature=",
        "the courier's configuration": "COURIER_CONFIG",
    }
    everything = json.dumps(seen)
    # The runner and Python's own packages may name what they do not have.
    code = {p: t for p, t in seen["files"].items() if p.endswith("/runner.pyz")}
    for text in code.values():
        everything = everything.replace(json.dumps(text), "")
    assert [what for what, text in hidden.items() if text in everything] == []
    assert "/labfunctions/bin/runner.pyz" in seen["files"]


def test_a_notebook_has_no_service_account(seen: Object) -> None:
    assert not [m for m in seen["mounts"] if "serviceaccount" in m or "secret" in m]
    assert not [f for f in seen["files"] if "serviceaccount" in f or "git-secret" in f]


def test_a_notebook_is_a_common_user_alone_in_its_container(seen: Object) -> None:
    assert seen["user"] == [1089, 1090]
    assert not [text for text in seen["processes"].values() if "courier" in text]


def test_a_courier_has_urls_for_its_own_keys_alone(looked: tuple[Team, Object]) -> None:
    team, run = looked
    config = courier_config(team)
    assert config.keys() == {"uploads", "report", "renew", "checkpointSeconds"}
    folder = f"/labfunctions/{team.namespace}/lab/adhoc/look-{run['metadata']['uid'][:8]}/1"
    paths = {name: urlsplit(url).path for name, url in config["uploads"].items()}
    assert paths == {name: f"{folder}/{name}" for name in paths}
    assert paths.keys() == {"notebook.ipynb", "notebook.html", "result.json"}
    assert f"/v1/reports/{team.namespace}/look/" in urlsplit(config["report"]).path
    assert f"/v1/uploads/{team.namespace}/look/" in urlsplit(config["renew"]).path


def test_a_signed_url_opens_nothing_else(looked: tuple[Team, Object]) -> None:
    team, _ = looked
    url = urlsplit(courier_config(team)["uploads"]["notebook.html"])
    other = url.path.replace("notebook.html", "another.html")
    kubectl = team.cluster.kubectl
    with (
        kubectl.forwarded_port(NAMESPACE, f"service/{STORE}", 7070) as port,
        urllib3.PoolManager(headers={"Host": url.netloc}, retries=False) as pool,
    ):

        def status(method: str, path: str) -> int:
            address = f"http://127.0.0.1:{port}{path}?{url.query}"
            body = b"a page" if method == "PUT" else None
            answer = pool.request(method, address, body=body, timeout=10)
            return int(answer.status)

        assert status("PUT", url.path) == 200
        assert status("PUT", other) == 403
        assert status("GET", url.path) == 403
        assert status("DELETE", url.path) == 403
        assert status("GET", f"/{url.path.split('/')[1]}") == 403


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "secrets", False),
        ("watch", "secrets", False),
        ("delete", "secrets", False),
        ("get", "secrets", True),
        ("patch", "projects", False),
        ("update", "workflows", False),
        ("patch", "runs", True),
        ("patch", "runs/status", True),
        ("create", "pods", False),
        ("create", "pods/exec", False),
        ("get", "nodes", True),
        ("list", "nodes", False),
        ("patch", "nodes", False),
        ("create", "clusterrolebindings", False),
    ],
)
def test_the_operator_s_rights_are_few(
    looked: tuple[Team, Object], verb: str, resource: str, allowed: bool
) -> None:
    name, _, subresource = resource.partition("/")
    words = ["auth", "can-i", verb, name, "--as", OPERATOR, "--all-namespaces"]
    words += ["--subresource", subresource] if subresource else []
    assert looked[0].cluster.kubectl.succeeds(*words) is allowed


def test_the_operator_s_token_lists_no_secrets(looked: tuple[Team, Object]) -> None:
    kubectl = looked[0].cluster.kubectl
    with pytest.raises(ClusterError, match="forbidden"):
        kubectl.run("get", "secrets", "-n", NAMESPACE, "--as", OPERATOR)


def test_all_pods_pass_the_strictest_rules(looked: tuple[Team, Object]) -> None:
    """The namespace enforces them; the label is what the API server goes by."""
    team, _ = looked
    namespace = team.cluster.kubectl.get("namespace", team.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    kinds = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in team.cluster.kubectl.get("pods", "-n", team.namespace)["items"]
    }
    assert kinds == {"build", "run"}
