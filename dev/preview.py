"""Writes a page that shows messages about as Slack, Discord and a mail reader do.

The bodies are what is sent; only their look is imitated, for docs/notifications.md:

    python -m dev.preview preview.html
    chromium --headless --no-sandbox --screenshot=docs/images/notifications.png \
        --window-size=1180,1400 preview.html
"""

import html
import re
import sys
from pathlib import Path
from typing import Any

from labfunctions_operator.api.notification import MissedDelivery, Target
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired import render
from labfunctions_operator.desired.message import Link, Message, missed_message, run_message

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 20px; background: #fff; color: #1d1c1d; width: 1140px }
h2 { font-size: 13px; color: #777; margin: 14px 0 4px; text-transform: uppercase }
.row { display: flex; gap: 24px } .row > div { flex: 1; min-width: 0 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.4 monospace; margin: 6px 0 }
.slack { border: 1px solid #ddd; border-radius: 8px; padding: 12px 16px }
.slack h1 { font-size: 17px; margin: 0 0 6px }
.slack .fields { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 16px; margin: 6px 0 }
.slack pre { background: #f6f6f6; border: 1px solid #ddd; border-radius: 4px; padding: 8px }
.slack small, .discord small { color: #777 }
.discord { background: #313338; color: #dbdee1; border-radius: 8px; padding: 12px 16px }
.embed { background: #2b2d31; border-left: 4px solid; border-radius: 4px; padding: 10px 14px }
.embed b { color: #f2f3f5; font-size: 14px; display: block } .embed a { color: #00a8fc }
.embed pre { background: #1e1f22; border-radius: 4px; padding: 8px }
.embed .fields { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; font-size: 13px }
.embed .wide { grid-column: 1 / -1 }
.mail { border: 1px solid #ddd; border-radius: 8px; padding: 12px 16px }
.mail p { margin: 0; color: #555 } .mail p b { color: #1d1c1d }
"""


def main() -> None:
    """Write the page to the path named on the command line."""
    failed, recovered, missed = failure(), recovery(), missed_ticks()
    parts = [
        f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>",
        _row(
            f"<h2>Slack: onFailure</h2>{_slack(render.slack(failed))}",
            f"<h2>Discord: onFailure</h2>{_discord(render.discord(failed)['embeds'][0])}",
        ),
        _row(
            f"<h2>Slack: onRecovered</h2>{_slack(render.slack(recovered))}",
            f"<h2>Discord: onMissed</h2>{_discord(render.discord(missed)['embeds'][0])}",
        ),
        f"<h2>Mail: onFailure</h2>{_mail(failed)}",
    ]
    Path(sys.argv[1]).write_text("".join(parts))


def _row(*columns: str) -> str:
    return f"<div class=row>{''.join(f'<div>{column}</div>' for column in columns)}</div>"


def failure() -> Message:
    """Return a message about a scheduled Run that failed."""
    due = {
        "labfunctions.io/scheduled-at": "2026-01-05T06:00:00Z",
        "labfunctions.io/time-zone": "Europe/Berlin",
    }
    tail = [
        "178 wines of 3 growers",
        "columns: alcohol, malic_acid, ash, hue",
        "signing in with [masked]",
        "ValueError: the data has no column 'colour'; @everyone <see> the *schema*",
    ]
    run = _run("wine-report-29412360", due, _FAILED)
    return run_message(run, "Failed", links=_links("29412360-5f0c/3"), tail=tail)


def recovery() -> Message:
    """Return a message about a Run by hand that succeeded after that."""
    by = {"labfunctions.io/started-by": "ada@example.com"}
    run = _run("wine-report-again", by, _SUCCEEDED)
    tail = ["178 wines of 3 growers", "report.pdf: 12 pages"]
    return run_message(run, "Recovered", links=_links("again-77ab/1"), tail=tail)


def missed_ticks() -> Message:
    """Return a message about ticks that got no Run."""
    workflow = Workflow.model_validate(
        {
            "metadata": {"name": "wine-report", "namespace": "team-wine", "uid": "5f0c"},
            "spec": {"schedule": "0 7 * * *", "timeZone": "Europe/Berlin"},
            "status": {"nextScheduleTime": "2026-01-08T06:00:00Z"},
        }
    )
    delivery = MissedDelivery(
        target=Target(name="discord"),
        due="2026-01-07T06:00:00Z",
        count=2,
        reason="MissedSchedule",
        cause="the scheduler was away or late",
    )
    return missed_message(workflow, delivery)


def _run(name: str, annotations: dict[str, str], status: dict[str, Any]) -> Run:
    return Run.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": "team-wine",
                "uid": "5f0c",
                "annotations": annotations,
            },
            "spec": {"workflowRef": {"name": "wine-report"}},
            "status": status,
        }
    )


def _links(folder: str) -> list[Link]:
    url = f"https://results.example.com/team-wine/wine/wine-report/wine-report-{folder}"
    return [
        Link(label=label, url=f"{url}/{file}", expires="2026-01-06T06:03:12Z")
        for label, file in (("Notebook", "notebook.ipynb"), ("HTML", "notebook.html"))
    ]


_SNAPSHOT = {
    "project": "wine",
    "workflow": "wine-report",
    "image": "i",
    "retries": {"limit": 2},
}
_FAILED: dict[str, Any] = {
    "phase": "Failed",
    "snapshot": _SNAPSHOT,
    "attempts": [{"number": n, "job": f"j-{n}"} for n in (1, 2, 3)],
    "failure": {
        "reason": "NotebookError",
        "cell": {"index": 3, "source": "grapes = wines.groupby('colour').mean()"},
        "exception": {
            "name": "ValueError",
            "message": "the data has no column 'colour'; @everyone <see> the *schema*",
        },
    },
    "completionTime": "2026-01-05T06:03:12Z",
    "durationSeconds": 47,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "False",
            "reason": "NotebookError",
            "message": "cell 3 of 5 raised ValueError: the data has no column 'colour'; "
            "@everyone <see> the *schema* (attempt 3)",
            "lastTransitionTime": "2026-01-05T06:03:12Z",
        }
    ],
}
_SUCCEEDED: dict[str, Any] = {
    "phase": "Succeeded",
    "snapshot": _SNAPSHOT,
    "attempts": [{"number": 1, "job": "j-1"}],
    "completionTime": "2026-01-05T09:12:40Z",
    "durationSeconds": 71,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "True",
            "reason": "Succeeded",
            "message": "all 5 cells completed",
            "lastTransitionTime": "2026-01-05T09:12:40Z",
        }
    ],
}


def _slack(body: dict[str, Any]) -> str:
    return f"<div class=slack>{''.join(map(_block, body['blocks']))}</div>"


def _block(block: dict[str, Any]) -> str:
    if block["type"] == "header":
        return f"<h1>{block['text']['text']}</h1>"
    if block["type"] == "context":
        elements = "  ·  ".join(_mrkdwn(element) for element in block["elements"])
        return f"<small>{elements}</small>"
    if "fields" in block:
        cells = "".join(f"<div>{_mrkdwn(field)}</div>" for field in block["fields"])
        return f"<div class=fields>{cells}</div>"
    return f"<div>{_mrkdwn(block['text'])}</div>"


def _mrkdwn(part: dict[str, Any]) -> str:
    text = str(part["text"])  # its entities are HTML's
    if part["type"] == "plain_text":
        return text
    text = re.sub(r"```\n(.*?)\n```", r"<pre>\1</pre>", text, flags=re.DOTALL)
    text = re.sub(r"<(https?://[^|>]*)\|([^>]*)>", r"<a href='\1'>\2</a>", text)
    return re.sub(r"^\*([^*]+)\*$", r"<b>\1</b>", text)


def _discord(embed: dict[str, Any]) -> str:
    fields = "".join(
        f"<div{'' if f['inline'] else ' class=wide'}><b>{f['name']}</b>"
        f"{_markdown(f['value'])}</div>"
        for f in embed["fields"]
    )
    return (
        f"<div class=discord><div class=embed style='border-color: #{embed['color']:06x}'>"
        f"<b>{_markdown(embed['title'])}</b>{_markdown(embed['description'])}"
        f"<div class=fields>{fields}</div>"
        f"<small>{embed['footer']['text']} · {embed['timestamp']}</small></div></div>"
    )


def _markdown(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"```\n(.*?)\n```", r"<pre>\1</pre>", text, flags=re.DOTALL)
    text = re.sub(r"(?<!\\)\[([^\]\\]+)\]\((https?://[^)]*)\)", r"<a href='\2'>\1</a>", text)
    return re.sub(r"\\(.)", r"\1", text).replace("\n<a", "<br><a")


def _mail(message: Message) -> str:
    mail = render.mail(
        message,
        sender="LabFunctions <robot@example.com>",
        to=["ada@example.com"],
        now=parse_time(message.time),
    )
    heads = "".join(f"<p><b>{n}</b> {html.escape(mail[n])}</p>" for n in ("From", "To", "Subject"))
    return f"<div class=mail>{heads}<pre>{html.escape(mail.get_content())}</pre></div>"


if __name__ == "__main__":
    main()
