"""What CRDs check beyond the shape of fields: rules in CEL, each with what it says to a user."""

from labfunctions_operator.api import backfill, nodegroup, project, run
from labfunctions_operator.api.cron import SCHEDULE
from labfunctions_operator.api.structural import structural_schema
from labfunctions_operator.api.types import Model

Rule = tuple[str, str]

_NO_ZONE = "schedule takes no TZ= or CRON_TZ=; name the zone in timeZone"
_FIELDS = (
    "schedule has five fields (minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, "
    "weekday 0-7 or sun-sat) and none for seconds, "
    "or is one of @hourly, @daily, @weekly, @monthly, @yearly"
)
_SCHEDULE: list[Rule] = [
    (
        "!has(self.schedule) || !has(self.interval)",
        "schedule and interval exclude each other",
    ),
    (
        "!has(self.schedule) || !self.schedule.contains('TZ=')",
        _NO_ZONE,
    ),
    (
        "!has(self.schedule) || self.schedule.contains('TZ=') "
        f"|| self.schedule.matches('{SCHEDULE}')",
        _FIELDS,
    ),
    (
        "!has(self.interval) || self.interval == '' || duration(self.interval) >= duration('1m')",
        "interval is at least 1m",
    ),
    (
        "!has(self.startAt) || !has(self.endAt) || self.startAt <= self.endAt",
        "endAt is before startAt",
    ),
    *(
        (
            f"!has(self.scheduler) || self.scheduler != 'CronJob' || {allowed}",
            f"{field}: a CronJob has no such thing; use scheduler Operator",
        )
        for field, allowed in {
            "interval": "!has(self.interval)",
            "startAt": "!has(self.startAt)",
            "endAt": "!has(self.endAt)",
            "repeat": "!has(self.repeat)",
            "jitterSeconds": "!has(self.jitterSeconds) || self.jitterSeconds == 0",
            "catchUp.policy": (
                "!has(self.catchUp) || !has(self.catchUp.policy) || self.catchUp.policy == 'Latest'"
            ),
            "concurrencyPolicy: Queue": (
                "!has(self.concurrencyPolicy) || self.concurrencyPolicy != 'Queue'"
            ),
        }.items()
    ),
]


PROJECT_RULES = [
    (
        "has(self.source) || (has(self.runtimes) && self.runtimes.size() > 0 "
        "&& self.runtimes.all(r, has(r.image)))",
        project.NO_SOURCE,
    ),
]

WORKFLOW_RULES = [
    ("has(self.projectRef)", "projectRef is required"),
    ("has(self.notebook)", "notebook is required"),
    *_SCHEDULE,
]


def _immutable(kind: str, model: type[Model], *, but: set[str]) -> list[Rule]:
    """Rules that a field neither changes, appears nor goes.

    CEL does not compare what the schema leaves open, so a change of a Run's parameters or of
    passed-on Pod fields is not refused; once it has started, its snapshot says what runs.
    """
    rules = []
    for name, field in structural_schema(model)["properties"].items():
        if name in but or "x-kubernetes-preserve-unknown-fields" in str(field):
            continue
        rules.append(
            (
                f"has(self.{name}) == has(oldSelf.{name}) "
                f"&& (!has(self.{name}) || self.{name} == oldSelf.{name})",
                f"a {kind} never changes; create another one to run with another {name}",
            )
        )
    return rules


BACKFILL_RULES = [
    ("self.from <= self.to", "to is before from"),
    ("self.from >= timestamp('1970-01-01T00:00:00Z')", "from is before 1970"),
    *_immutable("Backfill", backfill.BackfillSpec, but={"suspend", "maxActive"}),
]

_BESIDE_FROM = " || ".join(
    f"has(self.{name})"
    for name in structural_schema(run.RunSpec)["properties"]
    if name not in ("from", *run.BESIDE_FROM)
)
RUN_RULES = [
    (
        "has(self.from) || has(self.workflowRef) || (has(self.projectRef) && has(self.notebook))",
        "give workflowRef, or projectRef and notebook, or from",
    ),
    (f"!has(self.from) || !({_BESIDE_FROM})", run.FROM_ALONE),
    (
        "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
        "a cancelled Run stays cancelled",
    ),
    *_immutable("Run", run.RunSpec, but={"cancel", "ttlSecondsAfterFinished"}),
]

_PROVIDERS_GIVEN = " + ".join(
    f"(has(self.provider.{name}) ? 1 : 0)" for name in nodegroup.PROVIDERS
)
NODE_GROUP_RULES = [
    (
        f"!has(self.provider) || {_PROVIDERS_GIVEN} == 1",
        f"provider: give exactly one of {', '.join(nodegroup.PROVIDERS)}",
    ),
    ("!has(self.min) || self.min <= self.max", "min is greater than max"),
    (
        "!has(self.warm) || self.warm.all(w, w.min <= self.max)",
        "a warm min is greater than max",
    ),
    (
        "!has(self.warm) || self.warm.all(w, !w.schedule.contains('TZ='))",
        f"warm: {_NO_ZONE}",
    ),
    (
        "!has(self.warm) || self.warm.all(w, w.schedule.contains('TZ=') "
        f"|| w.schedule.matches('{SCHEDULE}'))",
        f"warm: {_FIELDS}",
    ),
]
