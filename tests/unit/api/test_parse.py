from typing import Any

import pytest
from objects import GIT, make_object

from labfunctions_operator.api.parse import KINDS, parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run, RunStatus
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec

READY_MADE = {"name": "ready", "image": "example.com/ready:1"}


def project_with(*, git: Any = None, runtime: Any = None, **spec: Any) -> dict[str, Any]:
    runtimes = {"runtimes": [{"name": "default", **runtime}]} if runtime else {}
    return make_object(
        "Project", "demo", {"source": {"git": {**GIT, **(git or {})}}, **runtimes, **spec}
    )


def refusal(obj: dict[str, Any], kind: type[Model] = Project) -> InvalidSpec:
    with pytest.raises(InvalidSpec) as caught:
        parse(kind, obj)
    return caught.value


LEAVES = "leaves the source; use a path inside the repository"
FORM = "has characters or a form not allowed here"
PATH_FORM = "has characters that a path may not have here"


@pytest.mark.parametrize(
    ("git", "field", "message"),
    [
        ({"path": "../x"}, "path", LEAVES),
        ({"path": "/etc"}, "path", LEAVES),
        ({"path": "a/../../b"}, "path", LEAVES),
        ({"path": "a/.."}, "path", LEAVES),
        ({"path": "a\nb"}, "path", PATH_FORM),
        ({"path": "a\x7fb"}, "path", PATH_FORM),
        ({"path": "a\x00b"}, "path", PATH_FORM),
        ({"path": 'a"b'}, "path", PATH_FORM),
        ({"path": "a\\b"}, "path", PATH_FORM),
        ({"path": "a$b"}, "path", PATH_FORM),
        ({"path": "a`b"}, "path", PATH_FORM),
        ({"path": "-x"}, "path", PATH_FORM),
        ({"path": "./-x"}, "path", PATH_FORM),
        ({"url": "file:///etc/passwd"}, "url", FORM),
        ({"url": "ext::sh -c touch% /tmp/x"}, "url", FORM),
        ({"url": "--upload-pack=touch x"}, "url", FORM),
        ({"url": "-x@example.com:demo.git"}, "url", FORM),
        ({"url": "https://example.com/a b"}, "url", FORM),
        ({"url": "https://example.com/a\nb"}, "url", FORM),
        ({"ref": "--upload-pack=x"}, "ref", FORM),
        ({"ref": "main branch"}, "ref", FORM),
        ({"ref": "main\n"}, "ref", FORM),
        ({"ref": ""}, "ref", FORM),
        ({"interval": "soon"}, "interval", FORM),
        ({"interval": "0s"}, "interval", "a duration must be longer than zero"),
        ({"interval": ""}, "interval", "is not a duration such as 90s, 1m or 1h30m"),
        ({"interval": "999999999999h"}, "interval", "is too long a duration"),
        ({"secretRef": {"name": "Not_A_Name"}}, "secretRef.name", FORM),
        ({"secretRef": {}}, "secretRef.name", "Field required"),
    ],
)
def test_parse_names_the_field_of_the_source_that_it_refuses(
    git: dict[str, Any], field: str, message: str
) -> None:
    error = refusal(project_with(git=git))
    assert error.path == f"spec.source.git.{field}"
    assert error.message.endswith(message)
    assert str(error) == f"{error.path}: {error.message}"


@pytest.mark.parametrize(
    ("runtime", "path", "message"),
    [
        ({"name": "Default"}, "name", FORM),
        ({"name": "a" * 41}, "name", "String should have at most 40 characters"),
        ({"name": "-a"}, "name", FORM),
        ({"env": {"BAD NAME": "x"}}, "env.BAD NAME", FORM),
        ({"env": {"1A": "x"}}, "env.1A", FORM),
        ({"env": {"": "x"}}, "env.", FORM),
        ({"env": {"A=B": "x"}}, "env.A=B", FORM),
        ({"env": {"A\nRUN": "x"}}, "env.A\nRUN", FORM),
        ({"env": {"A": "x\nRUN reboot"}}, "env.A", FORM),
        ({"env": {"A": "x\ry"}}, "env.A", FORM),
        ({"env": {"A": "x\x00y"}}, "env.A", FORM),
        ({"env": {"A": "x\x1by"}}, "env.A", FORM),
        ({"env": {"A": "x\x7fy"}}, "env.A", FORM),
        ({"packages": ["curl;reboot"]}, "packages[0]", FORM),
        ({"packages": ["git", "curl\nRUN reboot"]}, "packages[1]", FORM),
        ({"packages": ["curl\n"]}, "packages[0]", FORM),
        ({"packages": ["$(reboot)"]}, "packages[0]", FORM),
        ({"packages": ["curl`id`"]}, "packages[0]", FORM),
        ({"packages": ["curl git"]}, "packages[0]", FORM),
        ({"packages": ["--allow-unauthenticated"]}, "packages[0]", FORM),
        ({"buildPackages": ["gcc && reboot"]}, "buildPackages[0]", FORM),
        ({"buildPackages": ["gcc\\"]}, "buildPackages[0]", FORM),
        ({"baseImage": "python:3.11 AS x"}, "baseImage", FORM),
        ({"baseImage": "python\nRUN reboot"}, "baseImage", FORM),
        ({"baseImage": "${X}"}, "baseImage", FORM),
        ({"baseImage": "--platform=x"}, "baseImage", FORM),
        ({"image": "a b"}, "image", FORM),
        ({"python": "3.11; rm -rf /"}, "python", FORM),
        ({"python": "3.11\n"}, "python", FORM),
        ({"python": "latest"}, "python", FORM),
        ({"gpu": {"cuda": "12.8.1 x"}}, "gpu.cuda", FORM),
        ({"gpu": {"cuda": "12"}}, "gpu.cuda", FORM),
        ({"template": "tpu"}, "template", "Input should be 'cpu' or 'gpu'"),
        ({"dockerfile": "../Dockerfile"}, "dockerfile", LEAVES),
        ({"requirements": "/etc/passwd"}, "requirements", LEAVES),
        ({"requirements": 'a" && reboot "'}, "requirements", PATH_FORM),
        ({"requirements": "./-r"}, "requirements", PATH_FORM),
        ({"user": {"uid": 0}}, "user.uid", "Input should be greater than or equal to 1"),
        ({"user": {"gid": 65534}}, "user.gid", "Input should be less than or equal to 65533"),
        (
            {"build": {"timeoutSeconds": 1}},
            "build.timeoutSeconds",
            "Input should be greater than or equal to 30",
        ),
    ],
)
def test_parse_names_the_field_of_the_runtime_that_it_refuses(
    runtime: dict[str, Any], path: str, message: str
) -> None:
    error = refusal(project_with(runtime=runtime))
    assert error.path == f"spec.runtimes[0].{path}"
    assert error.message.endswith(message)


@pytest.mark.parametrize(
    ("obj", "kind", "path", "message"),
    [
        (
            project_with(runtime={"image": "a", "dockerfile": "b"}),
            Project,
            "spec.runtimes[0]",
            "image and dockerfile exclude each other",
        ),
        (
            project_with(runtimes=[{"name": "a"}, {"name": "a"}]),
            Project,
            "spec",
            "two runtimes have the same name",
        ),
        (
            project_with(registry={"repository": "a b"}),
            Project,
            "spec.registry.repository",
            f"'a b' {FORM}",
        ),
        (
            project_with(versionsHistoryLimit=0),
            Project,
            "spec.versionsHistoryLimit",
            "Input should be greater than or equal to 1",
        ),
        *(
            (
                make_object("Project", "demo", {"runtimes": runtimes}),
                Project,
                "spec",
                "source is required, unless every runtime has an image",
            )
            for runtimes in ([], [{"name": "built"}], [READY_MADE, {"name": "built"}])
        ),
        (
            make_object("Run", "r", {}),
            Run,
            "spec",
            "give workflowRef, or projectRef and notebook, or from",
        ),
        (
            make_object("Run", "r", {"notebook": "a.ipynb"}),
            Run,
            "spec",
            "give workflowRef, or projectRef and notebook, or from",
        ),
        (
            make_object("Workflow", "w", {"notebook": "a/../../b.ipynb"}),
            Workflow,
            "spec.notebook",
            f"'a/../../b.ipynb' {LEAVES}",
        ),
        (
            make_object("Workflow", "w", {"notebook": "/../b.ipynb"}),
            Workflow,
            "spec.notebook",
            f"'../b.ipynb' {LEAVES}",
        ),
        (
            make_object("Workflow", "w", {"gpu": {"count": 0}}),
            Workflow,
            "spec.gpu.count",
            "Input should be greater than or equal to 1",
        ),
        (
            make_object("Workflow", "w", {"env": ["A=1"]}),
            Workflow,
            "spec.env[0]",
            "Input should be a valid dictionary",
        ),
    ],
)
def test_parse_names_the_field_that_it_refuses(
    obj: dict[str, Any], kind: type[Model], path: str, message: str
) -> None:
    error = refusal(obj, kind)
    assert (error.path, error.message) == (path, message)


def test_parse_shows_no_more_than_the_beginning_of_a_long_value() -> None:
    error = refusal(project_with(runtime={"baseImage": " " * 500}))
    assert len(error.message) < 150


@pytest.mark.parametrize(
    ("given", "normal"),
    [(".", "."), ("", "."), ("a/./b//c/", "a/b/c"), ("./a", "a"), ("a b/c.d", "a b/c.d")],
)
def test_parse_normalizes_paths(given: str, normal: str) -> None:
    assert parse(Project, project_with(git={"path": given})).spec.source.git.path == normal


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"a": 1}},
        {"parameters": {}},
        {"workflowRef": {"name": "w"}},
        {"timeoutSeconds": 60},
        {"env": [{"name": "A", "value": "b"}]},
        {"safeToEvict": False},
    ],
)
def test_parse_refuses_what_has_no_effect_beside_from(more: dict[str, Any]) -> None:
    error = refusal(make_object("Run", "r", {"from": "other", **more}), Run)
    assert (error.path, error.message) == (
        "spec",
        "from runs exactly what another Run ran: "
        "it goes with nothing but cancel, notifications and ttlSecondsAfterFinished",
    )


@pytest.mark.parametrize(
    "name",
    [
        "RUNNER_CONFIG",
        "RUNNER_JOB",
        "LABFUNCTIONS_DIR",
        "TERMINATION_LOG",
        "LABFUNCTIONS_MASK_TOKEN",
    ],
)
def test_parse_refuses_variables_that_the_runner_reads(name: str) -> None:
    env = [{"name": "ZONE", "value": "eu"}, {"name": name, "value": "x"}]
    workflow = make_object("Workflow", "w", {"env": env})
    run = make_object("Run", "r", {"workflowRef": {"name": "w"}, "env": env})
    for obj, kind in ((workflow, Workflow), (run, Run)):
        error = refusal(obj, kind)
        assert error.path == "spec.env[1]"
        assert error.message == f"{name} is reserved for the runner; give it another name"
    # One that was started before that was so is still read.
    snapshot = {"project": "demo", "image": "i", "notebook": "a.ipynb", "env": env}
    started = parse(Run, make_object("Run", "r", run["spec"], {"snapshot": snapshot}))
    assert started.status.snapshot


def test_parse_takes_what_has_an_effect_beside_from() -> None:
    spec = {"from": "other", "cancel": True, "ttlSecondsAfterFinished": 5, "notifications": {}}
    assert parse(Run, make_object("Run", "r", spec)).spec.cancel is True


def test_parse_reads_a_run_that_has_started_whatever_was_made_of_its_open_fields() -> None:
    """A Run that could not be read would end, and its Job run on."""
    spec = {"from": "other", "cancel": True, "parameters": {"a": 1}, "env": ["A=1"]}
    started = {"snapshot": {"project": "demo", "image": "i", "notebook": "a.ipynb"}}
    run = parse(Run, make_object("Run", "r", spec, started))
    assert (run.spec.cancel, run.spec.from_run, run.spec.parameters) == (True, "other", {})
    refusal(make_object("Run", "r", spec, {"phase": "Pending"}), Run)


def test_parse_takes_a_notebook_anywhere_in_a_ready_made_image() -> None:
    workflow = parse(Workflow, make_object("Workflow", "w", {"notebook": "//opt/./a.ipynb"}))
    assert workflow.spec.notebook == "/opt/a.ipynb"


@pytest.mark.parametrize("kind", KINDS)
def test_parse_ignores_fields_of_a_newer_version(kind: str) -> None:
    spec: dict[str, Any] = {
        "source": {"git": {**GIT, "novelty": 1}},
        "projectRef": {"name": "demo", "novelty": 1},
        "notebook": "a.ipynb",
        "labels": {"pool": "gpu"},
        "max": 1,
        "workflowRef": {"name": "report", "novelty": 1},
        "novelty": {"a": 1},
    }
    if kind == "Backfill":
        spec |= {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    obj = make_object(kind, "demo", spec, {"novelty": [1]}, novelty=1)
    parsed = parse(KINDS[kind], obj)
    assert "novelty" not in str(parsed.model_dump())


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Perplexed"},
        {"conditions": [{"type": "Succeeded"}]},
        {"attempts": "many"},
        "done",
        [],
        None,
    ],
)
def test_parse_drops_a_status_that_cannot_be_read(status: Any) -> None:
    obj = make_object("Run", "r", {"workflowRef": {"name": "w"}}) | {"status": status}
    assert parse(Run, obj).status == RunStatus()


def test_parse_refuses_the_spec_even_when_the_status_cannot_be_read() -> None:
    obj = make_object("Run", "r", {}) | {"status": {"phase": "Perplexed"}}
    assert refusal(obj, Run).path == "spec"


def test_wire_keeps_null_parameters_and_drops_absent_fields() -> None:
    parameters = {"a": None, "b": [None, {"c": None}], "d": {}}
    spec = {"workflowRef": {"name": "w"}, "parameters": parameters}
    wire = parse(Run, make_object("Run", "r", spec)).wire()
    assert wire["spec"]["parameters"] == parameters
    assert "notebook" not in wire["spec"]
