"""What a notebook gets that a CronJob started, whose one text serves all its Jobs."""

import json

import pytest

from labfunctions_operator.runner.notebook_run import config

INJECT = {"WFID": "report", "PROJECT": "demo", "ATTEMPT": 1}
TEXT = json.dumps({"notebook": "a.ipynb", "inject": INJECT, "namedByJob": True})


def test_the_name_of_the_job_says_run_and_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "now", lambda: "2026-01-01T12:00:03Z")
    assert config.Config.parse(TEXT, "report-29454480").inject == {
        **INJECT,
        "EXECID": "report-29454480",
        "NOW": "2026-01-01T12:00:03Z",
        "SCHEDULED_AT": "2026-01-01T12:00:00Z",
    }


@pytest.mark.parametrize("job", ["report-by-hand", "other-29454480", "report-1", "", None])
def test_a_job_that_no_tick_named_has_no_time(job: str | None) -> None:
    inject = config.Config.parse(TEXT, job).inject
    assert inject["SCHEDULED_AT"] is None
    assert inject["EXECID"] == (job or "")


def test_the_operators_own_jobs_say_all_themselves() -> None:
    text = json.dumps({"notebook": "a.ipynb", "inject": {**INJECT, "EXECID": "first"}})
    assert config.Config.parse(text, "other").inject == {**INJECT, "EXECID": "first"}
