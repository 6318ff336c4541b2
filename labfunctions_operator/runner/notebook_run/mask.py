"""Takes secrets out of what a notebook shows."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, MutableMapping
from itertools import groupby
from typing import Any
from urllib.parse import quote, quote_plus

from labfunctions_operator.runner.notebook_run.text import joined, strip_ansi

MASK_PREFIX = "LABFUNCTIONS_MASK_"
MASKED = "[masked]"
# Shorter ones stand everywhere by chance.
SHORTEST_SECRET = 4
SHORTEST_LINE = 12
SHORTEST_BASE64 = 8


def take_secrets(environment: MutableMapping[str, str], names: Iterable[str]) -> list[str]:
    """The values of the variables that hold secrets.

    Takes away the prefixed copies, which are there for the runner alone: they tell it the values
    of whole Secrets, whose keys the operator does not know.
    """
    copies = [name for name in environment if name.startswith(MASK_PREFIX)]
    values = [environment[name] for name in names if name in environment]
    return values + [environment.pop(name) for name in copies]


def escapes(text: str) -> set[str]:
    """A text as it stands in the literals, JSON and HTML that a notebook prints."""
    escaped = html.escape(text)
    return {
        text,
        repr(text)[1:-1],
        # Beside both kinds of quotes, repr escapes the single ones.
        repr("'\"" + text)[4:-1],
        repr(_bytes(text))[2:-1],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        escaped,
        html.escape(text, quote=False),
        escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    }


def encodings(text: str) -> set[str]:
    """A text URL-quoted, and in base64, alone or amid another text (as in `user:password`)."""
    raw = _bytes(text)
    alone = b64encode(raw).decode()
    found = {quote(raw, safe=""), quote(raw), quote_plus(raw), alone, alone.rstrip("=")}
    for before, first in enumerate((0, 2, 3)):
        # The characters at both ends also hold bits of what stands beside the text.
        inner = b64encode(bytes(before) + raw).decode()[first : (before + len(raw)) * 8 // 6]
        if len(inner) >= SHORTEST_BASE64:
            found.add(inner)
    return found | {form.replace("+", "-").replace("/", "_") for form in found if form != text}


def _bytes(text: str) -> bytes:
    # As os.environ decoded it.
    return text.encode("utf-8", "surrogateescape")


class Mask:
    """Takes the values of secrets out of what a notebook shows, in every form they are likely in.

    It masks copies only: what the kernel goes on with, such as a display that it updates later,
    stays as it is.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            text = secret.strip()
            if len(text) >= SHORTEST_SECRET:
                forms |= escapes(text) | encodings(text)
            lines = [line.strip() for line in text.splitlines()]
            for line in lines if len(lines) > 1 else []:
                if len(line) >= SHORTEST_LINE:
                    forms |= escapes(line)
        self.forms = frozenset(forms)

    def text(self, text: str, *, unfinished: bool = False) -> str:
        """The text with its secrets masked; if unfinished, also the begin of one at its end."""
        spans = self._spans(text, unfinished)
        plain = strip_ansi(text)
        if plain != text:
            # A secret that colours run through is worth the colours.
            beneath = self._spans(plain, unfinished)
            text, spans = (plain, beneath) if len(beneath) > len(spans) else (text, spans)
        shown, last = [], 0
        for start, end in spans:
            shown += [text[last:start], MASKED]
            last = end
        return "".join([*shown, text[last:]])

    def split(self, text: str) -> tuple[str, str]:
        """The text up to where a secret may have begun that goes on in the next, and the rest."""
        cut = len(text) - self._begun(text)
        cut = next((end for start, end in self._spans(text) if start < cut < end), cut)
        return text[:cut], text[cut:]

    def _spans(self, text: str, unfinished: bool = False) -> list[tuple[int, int]]:
        """Where secrets stand, those that overlap as one."""
        found = []
        for form in self.forms:
            start = text.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = text.find(form, start + 1)
        begun = self._begun(text) if unfinished else 0
        if begun >= SHORTEST_SECRET:
            found.append((len(text) - begun, len(text)))
        merged: list[tuple[int, int]] = []
        for span in sorted(found):
            if merged and span[0] < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], span[1]))
            else:
                merged.append(span)
        return merged

    def _begun(self, text: str) -> int:
        """How many characters at the end may be the begin of a secret."""
        last = text[-1:]
        return max(
            (
                size
                for form in self.forms
                for size in range(1, min(len(form), len(text) + 1))
                if form[size - 1] == last and text.endswith(form[:size])
            ),
            default=0,
        )

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets in its texts, keys and numbers masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        if isinstance(value, (int, float)) and str(value) in self.forms:
            return MASKED
        return value

    def notebook(self, notebook: dict[str, Any]) -> dict[str, Any]:
        """The notebook with its outputs masked, and what they left in its metadata."""
        chosen = ("kernelspec", "language_info")
        about = notebook.get("metadata") or {}
        return {
            **notebook,
            "metadata": {k: v if k in chosen else self.value(v) for k, v in about.items()},
            "cells": [self._cell(cell) for cell in notebook["cells"]],
        }

    def _cell(self, cell: dict[str, Any]) -> dict[str, Any]:
        if not cell.get("outputs"):
            return cell
        state = (cell.get("metadata") or {}).get("papermill") or {}
        outputs = list(join_streams(cell["outputs"]))
        last = len(outputs) - 1 if state.get("status") == "running" else None
        masked = [self._output(output, number == last) for number, output in enumerate(outputs)]
        return {**cell, "outputs": masked}

    def _output(self, output: dict[str, Any], unfinished: bool) -> dict[str, Any]:
        masked = dict(output)
        if output["output_type"] == "stream":
            masked["text"] = self.text(output["text"], unfinished=unfinished)
        for key in ("ename", "evalue", "traceback", "metadata"):
            if key in output:
                masked[key] = self.value(output[key])
        if "data" in output:
            data = output["data"].items()
            masked["data"] = {mime: v if is_binary(mime) else self.value(v) for mime, v in data}
        return masked


def join_streams(outputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The outputs, with what a stream wrote piece by piece as one text."""
    for (kind, _), group in groupby(outputs, lambda o: (o["output_type"], o.get("name"))):
        if kind == "stream":
            pieces = list(group)
            yield {**pieces[0], "text": "".join(joined(piece["text"]) for piece in pieces)}
        else:
            yield from group


def is_binary(mime: str) -> bool:
    """Whether the content of a MIME type is base64, which a secret stands in only by chance."""
    binary = mime.startswith(("image/", "audio/", "video/")) or mime == "application/pdf"
    return binary and not mime.endswith("+xml")
