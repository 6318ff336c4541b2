"""What a courier is told: what it may do and where, and how long it waits between its tries."""

import json
from dataclasses import dataclass, field

BACKOFF_SECONDS = (0.5, 10.0)


@dataclass(frozen=True)
class Config:
    """What the operator asks for, from COURIER_CONFIG, or from its answer when it is asked.

    Attributes:
        uploads: File name to the URL that takes it.
        report: Where progress goes; None where nobody asks for it.
        checkpoint_seconds: The time between two uploads of a notebook that runs.
        renew: Where to ask for all of this anew, once the store takes the URLs no longer.
        claim: Where the rest is to be asked for, as a CronJob has one configuration for all its
            Jobs; None once it is known.
        job: The name of this pod's Job.
    """

    uploads: dict[str, str]
    report: str | None
    checkpoint_seconds: float
    renew: str | None = None
    claim: str | None = None
    job: str = ""

    @classmethod
    def parse(cls, text: str, job: str = "") -> "Config":
        """Reads the configuration from JSON."""
        raw = json.loads(text)
        claim = raw.get("claim")
        return cls(
            uploads={} if claim else dict(raw["uploads"]),
            report=raw.get("report"),
            checkpoint_seconds=raw.get("checkpointSeconds", 30),
            renew=raw.get("renew"),
            claim=claim,
            job=job,
        )


@dataclass
class Backoff:
    """How long to wait after each failure in a row."""

    delay: float = field(default_factory=lambda: BACKOFF_SECONDS[0])

    def next(self) -> float:
        """The wait after one more failure, in seconds."""
        delay, self.delay = self.delay, min(self.delay * 2, BACKOFF_SECONDS[1])
        return delay

    def reset(self) -> None:
        """The failures have ended."""
        self.delay = BACKOFF_SECONDS[0]
