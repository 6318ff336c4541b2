"""What messages say, and how each medium gets it: whole, escaped and short enough."""

import json
import re
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import NOW, at, make_run, make_workflow, stamp

from labfunctions_operator.api.notification import MissedDelivery
from labfunctions_operator.desired import render
from labfunctions_operator.desired.message import (
    Link,
    Message,
    missed_message,
    one_line,
    run_message,
)
from labfunctions_operator.desired.starter import creator, started_by

NASTY = "<!channel> @everyone @here <@U1> *b* _i_ ~s~ `c` ```x``` [l](http://e.vil) & <b>"
LINK = Link(label="Notebook", url="https://s3.example.com/n?a=1&b=2", expires=stamp(60))


def failed_run(text: str = "no wine left", name: str = "report-7", **status: Any) -> Any:
    return make_run(
        name,
        status={
            "phase": "Failed",
            "snapshot": {
                "project": "demo",
                "workflow": "report",
                "image": "i",
                "retries": {"limit": 2},
            },
            "attempts": [{"number": n, "job": f"j-{n}"} for n in (1, 2, 3)],
            "failure": {
                "reason": "NotebookError",
                "cell": {"index": 2, "source": f"drink({text!r})"},
                "exception": {"name": "ValueError", "message": text},
            },
            "outputs": {"notebook": "s3://b/n.ipynb"},
            "startTime": stamp(-125),
            "completionTime": stamp(),
            "durationSeconds": 125,
            "conditions": [
                {
                    "type": "Succeeded",
                    "status": "False",
                    "reason": "NotebookError",
                    "message": f"cell 2 raised ValueError: {text}",
                    "lastTransitionTime": stamp(),
                }
            ],
            **status,
        },
    )


def message(text: str = "no wine left", **about: Any) -> Message:
    return run_message(failed_run(text), "Failed", **about)


def test_a_failure_says_what_a_person_asks_first() -> None:
    said = message(tail=["loading", "drinking"], links=[LINK])
    assert said.title == "report failed: NotebookError"
    assert said.summary == "cell 2 raised ValueError: no wine left"
    assert dict(said.facts) == {
        "Workflow": "team/report",
        "Run": "team/report-7",
        "Started by": "a request",
        "Duration": "2 min 5 s",
        "Attempt": "3 of 3",
        "Cell": "2: drink('no wine left')",
        "Exception": "ValueError: no wine left",
    }
    assert (said.document["attempt"], said.document["attempts"]) == (3, 3)
    assert said.tail == ("loading", "drinking")
    assert said.id == f"{failed_run().metadata.uid}.failed"


@pytest.mark.parametrize(
    ("event", "title"), [("Succeeded", "report succeeded"), ("Recovered", "report works again")]
)
def test_titles_of_good_news(event: Any, title: str) -> None:
    assert run_message(failed_run(failure=None), event).title == title


def test_several_failures_alike_are_one_message_with_a_count() -> None:
    names = [f"r-{n}" for n in range(40)]
    said = message(runs=names, count=500)
    assert said.title == "report failed 500 times: NotebookError"
    assert dict(said.facts)["Runs"].endswith("r-19 and 480 more")
    assert render.json_body(said)["count"] == 500


ZONE = "labfunctions.io/time-zone"
AT = "labfunctions.io/scheduled-at"
BY = "labfunctions.io/started-by"
CAUSE = "kubernetes.io/change-cause"
TOOL = "app.kubernetes.io/managed-by"
BACKFILL = "labfunctions.io/backfill"


@pytest.mark.parametrize(
    ("annotations", "labels", "said"),
    [
        ({AT: "2026-01-01T06:00:00Z"}, {}, "the schedule, for 2026-01-01 06:00 UTC"),
        (
            {AT: "2026-01-01T06:00:00Z", ZONE: "Europe/Berlin"},
            {},
            "the schedule, for 2026-01-01 07:00 Europe/Berlin",
        ),
        (
            {AT: "2026-07-01T06:00:00Z", ZONE: "America/New_York"},
            {BACKFILL: "again"},
            "Backfill again, for 2026-07-01 02:00 America/New_York",
        ),
        ({AT: "noon"}, {}, "the schedule, for noon"),
        ({AT: "2026-01-01T06:00:00Z", ZONE: "../../etc"}, {}, "the schedule, for 2026-01-01T06:"),
        ({}, {}, "a request through kubectl-create"),
        ({}, {TOOL: "Helm"}, "a request through Helm"),
        ({CAUSE: "new data"}, {}, "a request through kubectl-create: new data"),
        ({BY: "ada@example.com"}, {}, "ada@example.com through kubectl-create"),
        ({BY: "<b>\n@here"}, {}, "<b> @here through kubectl-create"),
    ],
)
def test_who_started_a_run(annotations: Any, labels: Any, said: str) -> None:
    run = failed_run()
    named = run.but(metadata=run.metadata.but(annotations=annotations, labels=labels))
    built = run_message(named, "Failed", tool="kubectl-create")
    assert dict(built.facts)["Started by"].startswith(said)
    assert built.document["startedBy"] == dict(built.facts)["Started by"]


def test_who_repeats_a_run() -> None:
    repeat = make_run("again", notebook=None, **{"from": "first"})
    assert started_by(repeat) == "a repeat of Run first"
    assert started_by(repeat, "curl") == "a repeat of Run first through curl"
    by = repeat.but(metadata=repeat.metadata.but(annotations={BY: "ada"}))
    assert started_by(by) == "a repeat of Run first, by ada"


def test_what_created_an_object() -> None:
    managers = [
        {"manager": "kubectl-edit", "operation": "Update", "time": stamp(9)},
        {"manager": "labfunctions", "operation": "Update", "time": stamp(-9)},
        {"manager": "argocd-controller", "operation": "Apply", "time": stamp()},
        {"manager": "a", "operation": "Update", "time": stamp(-5), "subresource": "status"},
        {"operation": "Update"},
    ]
    assert creator(managers) == "argocd-controller"
    assert creator([]) is None


def test_a_run_that_never_started() -> None:
    said = run_message(make_run(status={"phase": "Failed"}), "Failed")
    assert (said.title, said.summary) == ("report failed", "")
    for write in (render.plain, render.slack, render.discord, render.cloud_event):
        assert write(said)


def missed_tick(count: int = 3, due: str = stamp(), **spec: Any) -> Message:
    delivery = {
        "target": {"name": "slack"},
        "due": due,
        "count": count,
        "reason": "MissedSchedule",
        "cause": "the scheduler was away or late",
    }
    workflow = make_workflow(**{"schedule": "0 6 * * *", **spec})
    workflow = workflow.but(status=workflow.status.but(next_schedule_time=stamp(3600)))
    return missed_message(workflow, MissedDelivery.model_validate(delivery))


def test_a_missed_tick() -> None:
    said = missed_tick()
    local = stamp()[:16].replace("T", " ")
    assert said.title == "report missed its schedule 3 times"
    assert said.summary == (
        f"3 ticks, the last one of {local} UTC, got no Run: the scheduler was away or late"
    )
    following = stamp(3600)[:16].replace("T", " ")
    assert dict(said.facts) == {
        "Workflow": "team/report",
        "Schedule": "0 6 * * *",
        "Next tick": f"{following} UTC",
    }
    event = render.cloud_event(said)
    assert event["type"] == "io.labfunctions.run.missed"
    assert event["source"].endswith("/namespaces/team/workflows/report")
    assert event["data"]["reason"] == "MissedSchedule"
    assert event["data"]["due"] == stamp()
    for write in (render.plain, render.slack, render.discord):
        assert "the scheduler was away or late" in str(write(said))


def test_a_missed_tick_is_told_in_the_schedules_zone() -> None:
    said = missed_tick(1, timeZone="Asia/Tokyo")
    assert said.title == "report missed its schedule"
    assert "Asia/Tokyo got no Run: the scheduler" in said.summary
    assert dict(said.facts)["Schedule"] == "0 6 * * * (Asia/Tokyo)"
    assert dict(missed_tick(schedule=None, interval="30m").facts)["Schedule"] == "each 30m"


def test_the_end_of_the_output_is_kept_and_cut_to_what_a_message_holds() -> None:
    said = message(tail=[f"line {n} " + "x" * 500 for n in range(100)])
    assert said.tail[-1].startswith("line 99 ")
    assert sum(map(len, said.tail)) <= 1500
    assert message(tail=[str(n) for n in range(100)]).tail == tuple(map(str, range(88, 100)))


def test_plain_text_says_all_of_it() -> None:
    text = render.plain(message(tail=["loading"], links=[LINK]))
    assert text.startswith("report failed: NotebookError\n\ncell 2 raised")
    assert "\nException:  ValueError: no wine left\n" in text
    assert "\nLast lines of output:\n  loading\n" in text
    assert text.endswith(f"Notebook: {LINK.url} (works until {stamp(60)})\n")


def parts_of(said: Any) -> list[Any]:
    return [
        part
        for block in said["blocks"]
        for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        if part is not None
    ]


def test_slack_gets_no_mention_and_no_markup_of_a_users() -> None:
    said = render.slack(message(NASTY, tail=[NASTY], links=[LINK]))
    shown = json.dumps(said, ensure_ascii=False)
    allowed = {f"<{LINK.url.replace('&', '&amp;')}|Notebook>"}
    assert set(re.findall(r"<[^>]*>", shown)) == allowed
    assert not re.search(r"@(everyone|here|channel)", shown)
    marked = [part["text"] for part in parts_of(said) if part["type"] == "mrkdwn"]
    [code] = [text for text in marked if "```" in text]
    assert code.count("```") == 2, "the code block ends where it should"
    assert not any("*b*" in text for text in marked if text is not code)
    assert "&lt;!channel&gt;" in said["text"]


def test_discord_gets_no_mention_and_no_markup_of_a_users() -> None:
    said = render.discord(message(NASTY, tail=[NASTY], links=[LINK]))
    assert said["allowed_mentions"] == {"parse": []}
    [embed] = said["embeds"]
    shown = embed["description"]
    assert not re.search(r"@(everyone|here|<)", json.dumps(said, ensure_ascii=False))
    assert shown.count("```") == 2
    assert r"\[l\]\(http" in shown
    assert f"[Notebook]({LINK.url}) (works until" in shown


def test_links_that_are_no_addresses_are_only_named() -> None:
    said = message(links=[Link(label="Notebook", url="s3://b/n.ipynb")])
    assert "`s3://b/n.ipynb`" in json.dumps(render.slack(said))
    assert "](" not in render.discord(said)["embeds"][0]["description"]


def test_cloud_events_have_what_the_specification_requires() -> None:
    event = render.cloud_event(message(links=[LINK]))
    assert event["specversion"] == "1.0"
    assert event["id"] == message().id
    assert event["type"] == "io.labfunctions.run.failed"
    assert event["source"] == "/apis/labfunctions.io/v1alpha1/namespaces/team/runs/report-7"
    assert event["time"] == stamp()
    data = event["data"]
    assert data["exception"] == {"name": "ValueError", "message": "no wine left"}
    assert data["links"] == [{"label": "Notebook", "url": LINK.url, "expires": LINK.expires}]


def test_a_mail_has_one_subject_and_the_same_id_for_every_try() -> None:
    first = render.mail(message("a\r\nBcc: x@y.z"), sender="a@b.c", to=["d@e.f"], now=NOW)
    assert first["Subject"] == "[team] report failed: NotebookError"
    assert first["Bcc"] is None
    again = render.mail(message(), sender="a@b.c", to=["d@e.f"], now=at(60))
    assert again["Message-ID"] == first["Message-ID"]
    assert parsedate_to_datetime(again["Date"]) == at(60)


def test_mails_about_ticks_have_ids_of_their_own() -> None:
    """RFC 5322: an id is two words in angle brackets, and neither has a colon."""
    word = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
    ids = set()
    for minute in range(3):
        said = missed_tick(due=stamp(60 * minute))
        raw = render.mail(said, sender="a@b.c", to=["d@e.f"], now=NOW).as_bytes()
        [found] = re.findall(rb"(?m)^Message-ID: *\r?\n? *(.*?)\r?$", raw)
        assert re.fullmatch(f"<{word}@{word}>", found.decode())
        ids.add(found)
    assert len(ids) == 3


def test_what_a_reader_cannot_see_is_left_out() -> None:
    assert one_line("a\u202eb\u200b\x00\x1b[31mc\n\n d") == "ab[31mc d"


TEXTS = st.one_of(
    st.text(max_size=400),
    st.text(alphabet="<>&@`*_[]()|\\\n\r\u202e😀", max_size=3000),
    st.just("<" * 6000),
)


def long_link(label: str, length: int, sign: str = "a") -> Link:
    return Link(label=label, url="https://s3.example.com/?" + sign * length, expires=stamp(60))


@pytest.mark.parametrize(
    ("lengths", "shown"),
    [
        ((1700, 1600), [True, True]),
        ((3500, 100), [True, True]),
        ((2500, 2400), [True, False]),
        ((5000, 100), [False, True]),
    ],
)
def test_discord_gets_whole_links_or_is_told_that_one_is_too_long(
    lengths: tuple[int, int], shown: list[bool]
) -> None:
    links = [long_link(str(n), length) for n, length in enumerate(lengths)]
    description = render.discord(message(links=links))["embeds"][0]["description"]
    assert [f"({link.url})" in description for link in links] == shown
    said = [f"{n}: the link is too long to be shown" in description for n in range(2)]
    assert said == [not whole for whole in shown]


def test_slack_gets_whole_links_or_is_told_that_one_is_too_long() -> None:
    links = [long_link("Notebook", 2800), long_link("HTML", 3000)]
    first, second = render.slack(message(links=links))["blocks"][-1]["elements"]
    assert first["text"].startswith(f"<{links[0].url}|Notebook>")
    assert second["text"] == "HTML: the link is too long to be shown"


def test_of_output_that_does_not_fit_the_last_lines_are_shown() -> None:
    said = message(tail=[f"{n} " + "&" * 190 for n in range(12)])
    code = next(p["text"] for p in parts_of(render.slack(said)) if "```" in p["text"])
    assert "\n11 &amp;" in code
    assert code.endswith("&amp;\n```")


LINKS = st.lists(
    st.builds(long_link, st.sampled_from(["Notebook", "HTML"]), st.integers(0, 5000), st.just("(")),
    max_size=2,
)


@given(text=TEXTS, line=TEXTS, own=st.one_of(st.none(), TEXTS), title=TEXTS, links=LINKS)
def test_every_medium_takes_whatever_a_notebook_says(
    text: str, line: str, own: str | None, title: str, links: list[Link]
) -> None:
    said = message(text, tail=[line] * 30, links=[LINK, *links], runs=["r"] * 30, count=30)
    said = replace(said, title=one_line(title, 150) or "-", text=own and own[:2800])
    slack = render.slack(said)
    assert len(slack["text"]) <= 1000
    for block in slack["blocks"]:
        for part in [block.get("text"), *block.get("elements", [])]:
            assert part is None or 0 < len(part["text"]) <= 3000
        fields = block.get("fields", [])
        assert len(fields) <= 10
        assert all(len(field["text"]) <= 2000 for field in fields)
    assert len(slack["blocks"][0]["text"]["text"]) <= 150
    [embed] = render.discord(said)["embeds"]
    assert 0 < len(embed["title"]) <= 256
    assert len(embed["description"]) <= 4096
    assert all(0 < len(f["value"]) <= 1024 for f in embed["fields"])
    parts = [embed["title"], embed["description"], embed["footer"]["text"]]
    parts += [f["name"] + f["value"] for f in embed["fields"]]
    assert sum(map(len, parts)) <= 6000
    assert f"[Notebook]({LINK.url})" in embed["description"], "the first link always fits"
    mail = render.mail(said, sender="a@b.c", to=["d@e.f"], now=NOW)
    assert len(mail["Subject"]) <= 200
    assert len(mail.as_bytes()) <= 64 * 1024
    assert len(json.dumps(render.cloud_event(said))) <= 64 * 1024
