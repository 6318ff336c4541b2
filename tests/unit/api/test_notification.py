"""What users may write about who is told of what."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from crd_schema import errors, schema_of
from objects import GIT, make_object, make_project, make_run, make_workflow

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec

SLACK = {"slack": {"secretRef": {"name": "bot"}, "channel": "#alerts"}}


def entry(value: Any) -> Any:
    return make_workflow(notifications={"onFailure": [value]}).spec.notifications


def test_a_target_is_a_name_or_written_out() -> None:
    [named] = entry("slack").on_failure
    assert (named.name, named.media) == ("slack", [])
    assert entry({"name": "slack"}).on_failure == [named]
    [whole] = entry(SLACK).on_failure
    assert whole.media == ["slack"]
    assert whole.wire() == SLACK


@pytest.mark.parametrize(
    "target",
    [
        {"slack": {"webhookSecretRef": {"name": "a"}}},
        {"discord": {"webhookSecretRef": {"name": "a"}}},
        {"webhook": {"url": "https://example.com/hook", "format": "CloudEvents"}},
        {"webhook": {"secretRef": {"name": "a"}, "headersSecretRef": {"name": "b"}}},
        {"email": {"smtpSecretRef": {"name": "a"}, "to": ["ada@example.com"]}},
    ],
)
def test_each_medium(target: Any) -> None:
    [found] = entry(target).on_failure
    assert [*found.media] == [*target]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "give exactly one of slack, discord, webhook, email, or a name"),
        ({**SLACK, "discord": {"webhookSecretRef": {"name": "a"}}}, "give exactly one of"),
        ({"slak": {}}, "slak is unknown"),
        ({"slack": {"secretRef": {"name": "a"}, "chanel": "b"}}, "slack.chanel is unknown"),
        ({"slack": {"secretRef": {"name": "a"}}}, "channel goes with secretRef"),
        ({"slack": {}}, "give secretRef and channel, or webhookSecretRef"),
        ({"slack": {"webhookSecretRef": {"name": "a"}, "channel": "b"}}, "channel goes with"),
        ({"webhook": {}}, "give url or secretRef"),
        ({"webhook": {"url": "http://a", "secretRef": {"name": "a"}}}, "give url or secretRef"),
        ({"webhook": {"url": "ftp://a"}}, "is not an http or https URL"),
        ({"webhook": {"url": "https://u:p@a"}}, "credentials belong in headersSecretRef"),
        ({"webhook": {"url": "https://[a"}}, "is not a URL"),
        ({"email": {"smtpSecretRef": {"name": "a"}, "to": []}}, "at least 1 item"),
        ({"email": {"smtpSecretRef": {"name": "a"}, "to": ["a@b\nBcc: c@d"]}}, "form not allowed"),
        ({"email": {"smtpSecretRef": {"name": "a"}, "to": ["a@b, c@d"]}}, "form not allowed"),
        ("Not A Name", "form not allowed"),
        (7, "valid dictionary"),
        ([], "valid dictionary"),
        (None, "valid dictionary"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(target: Any, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message) as refused:
        entry(target)
    assert refused.value.path.startswith("spec.notifications.onFailure[0]")


def test_targets_of_a_project_have_names_of_their_own() -> None:
    target = {"name": "slack", **SLACK}
    assert make_project(notificationTargets=[target]).spec.notification_targets[0].name == "slack"
    with pytest.raises(InvalidSpec, match="two notificationTargets have the same name"):
        make_project(notificationTargets=[target, target])
    with pytest.raises(InvalidSpec, match="exactly one"):
        make_project(notificationTargets=[{"name": "slack"}])
    with pytest.raises(InvalidSpec, match="name"):
        parse(
            Project,
            make_object("Project", "p", {"source": {"git": GIT}, "notificationTargets": [SLACK]}),
        )


def test_the_example_is_one() -> None:
    manifests = Path(__file__).parents[3] / "examples" / "manifests"
    example = yaml.safe_load((manifests / "notifications.yaml").read_text())
    schema = schema_of("Workflow")["properties"]["spec"]
    assert list(errors(schema, example["spec"], "spec")) == []
    assert parse(Workflow, example).spec.notifications


def test_an_edit_of_a_run_that_has_started_cannot_make_it_unreadable() -> None:
    edited = {"workflowRef": {"name": "report"}, "notifications": {"onFailure": [{"slak": 1}]}}
    with pytest.raises(InvalidSpec):
        make_run(**edited)
    started = {"snapshot": {"project": "demo", "image": "i"}}
    run = parse(Run, make_object("Run", "first", edited, started))
    assert run.spec.notifications is None


def test_a_stored_target_of_a_newer_version_can_be_read() -> None:
    target = {"slack": {**SLACK["slack"], "thread": "new"}, "novelty": 1}
    delivery = {"event": "Failed", "state": "Pending", "target": target}
    run = make_run(status={"phase": "Failed", "notifications": [delivery]})
    assert run.status.notifications
    assert run.status.notifications[0].target.wire() == SLACK
