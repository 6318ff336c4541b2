"""What a cron schedule is made of: one rule for the API server and for the operator."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
SPACE = r"[ \t\r\n]"
_MONTHS = "(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_WEEKDAYS = "(?i:sun|mon|tue|wed|thu|fri|sat)"


def _field(value: str) -> str:
    """Return the pattern of a list of values, ranges and wildcards, each maybe with a step."""
    part = f"([*?]|({value})(-({value}))?)(/0*[1-9][0-9]?)?"
    return f"{part}(,{part})*"


FIELDS = {
    "minute": _field("[0-5]?[0-9]"),
    "hour": _field("[01]?[0-9]|2[0-3]"),
    "day": _field("0?[1-9]|[12][0-9]|3[01]"),
    "month": _field(f"0?[1-9]|1[0-2]|{_MONTHS}"),
    "weekday": _field(f"0?[0-7]|{_WEEKDAYS}"),
}
"""Patterns that RE2 and Python read alike, by the name of the field."""

SCHEDULE = f"^{SPACE}*({'|'.join(ALIASES)}|{f'{SPACE}+'.join(FIELDS.values())}){SPACE}*$"
