"""Finds, in what a failed build printed, the lines that tell a person what to change."""

import re

import termination

_CONTEXT_LINES = 8
_LINE_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?|^\d+\.\d+ ")
_STEP = re.compile(r"^ > (?P<step>\[.+\]) ?(?P<command>.*?):?$")
_SOLVE_ERROR = re.compile(r"^(?:error|ERROR): (?:failed to solve: )?(?P<text>.+)$")
_PROGRESS = re.compile(r"\s*(?:Collecting|Downloading|Using cached|Requirement already|Get:\d|━)")
_STEP_ERROR = re.compile(r"^#(\d+) ERROR: ")
_EXIT_CODE = re.compile(r"exit code: \d+$")

# The first that matches wins, so causes stand before consequences; `{0}` is the first group.
_MEANINGS = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"no space left on device", "the builder's disk is full"),
        (
            r"Retrying \(Retry\(total=0|error sending request for url|Temporary failure resolving",
            "the package index cannot be reached",
        ),
        (
            r"ERROR: No matching distribution found for (.+)",
            "requirements do not resolve: no matching distribution found for {0}",
        ),
        (
            r"ERROR: Cannot install (.+?) because these package versions have conflict",
            "requirements do not resolve: {0} are in conflict",
        ),
        (r"ERROR: Invalid requirement: (.+)", "requirements are not valid: {0}"),
        (r"No solution found when resolving dependencies", "requirements do not resolve"),
        (r"E: Unable to locate package (\S+)", "there is no Debian package {0}"),
        (r"E: Package '(\S+)' has no installation candidate", "there is no Debian package {0}"),
        (
            r"failed to resolve source metadata for (\S+?): .*"
            r"(?:401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|denied)",
            "image {0} does not exist or needs credentials",
        ),
        (
            r"failed to (?:push|authorize|fetch).*"
            r"(?:401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|denied)",
            "the registry refused the credentials",
        ),
        (r"failed to resolve source metadata for (\S+?): .*not found", "image {0} does not exist"),
        (
            r"failed to (?:compute cache key|calculate checksum).*\"(.+?)\": not found",
            "{0} is not in the source",
        ),
        (r"dockerfile parse error on line \d+: .+", "the Dockerfile is not valid"),
        (
            r"failed to push \S+: .*(?:connection refused|no such host|i/o timeout)",
            "the registry cannot be reached",
        ),
    )
)


def explain(lines: list[str]) -> str:
    """Return the reason, the failing step and its last output, in at most 2 KiB.

    Args:
        lines: The end of BuildKit's plain progress.
    """
    plain = [_LINE_PREFIX.sub("", line).rstrip() for line in _of_failed_step(lines)]
    step, output = _failed_step(plain)
    reason = _reason(plain)
    final = _final_error(plain)
    parts = [reason] if reason else []
    if step and reason:
        parts.append(f"step {step}")
    elif step:
        exit_code = _EXIT_CODE.search(final)
        parts.append(f"step {step} failed" + (f", {exit_code[0]}" if exit_code else f": {final}"))
    else:
        parts.append(final)
    said = [line for line in output if line and not _PROGRESS.match(line)]
    return termination.clip("\n".join(parts + said[-_CONTEXT_LINES:]))


def _of_failed_step(lines: list[str]) -> list[str]:
    """Leave out what other steps printed: they may have failed on purpose, or say anything."""
    failed = [match[1] for line in lines if (match := _STEP_ERROR.match(line))]
    if not failed:
        return lines
    return [line for line in lines if line.startswith(f"#{failed[-1]} ") or line[:1] != "#"]


def _reason(lines: list[str]) -> str | None:
    for pattern, meaning in _MEANINGS:
        for line in lines:
            if match := pattern.search(line):
                return meaning.format(*(group.strip() for group in match.groups()))
    return None


def _failed_step(lines: list[str]) -> tuple[str | None, list[str]]:
    """Return BuildKit's closing block: the step's command and what it printed."""
    for number in range(len(lines) - 1, -1, -1):
        if match := _STEP.match(lines[number]):
            output = []
            for line in lines[number + 1 :]:
                if set(line) == {"-"}:
                    break
                output.append(line)
            return f"{match['step']} {match['command']}".strip(), output
    return None, []


def _final_error(lines: list[str]) -> str:
    for line in reversed(lines):
        if match := _SOLVE_ERROR.match(line):
            return match["text"]
    return lines[-1] if lines else "the build failed without a message"
