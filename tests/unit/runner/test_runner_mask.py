"""What is taken out of everything that leaves the notebook's container."""

import base64
import html
import json
import random
import time
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from executions import stream

from labfunctions_operator.runner.notebook_run.mask import Mask, take_secrets

AWKWARD = """p&ss'w"rd<\\ü/ 1+2%"""
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nshort\nhkiG9w0BAQEFAASC==\n-----END KEY-----\n"


def test_the_secrets_of_an_environment() -> None:
    environment = {
        "TOKEN": "one",
        "LABFUNCTIONS_MASK_A": "two",
        "LABFUNCTIONS_MASK_": "three",
        "A": "two",
        "OTHER": "x",
    }
    assert sorted(take_secrets(environment, ["TOKEN", "ABSENT"])) == ["one", "three", "two"]
    assert environment == {"TOKEN": "one", "A": "two", "OTHER": "x"}


@pytest.mark.parametrize(
    "shown",
    [
        AWKWARD,
        repr(AWKWARD),
        repr({"key": AWKWARD}),
        repr([f"both quotes ' \" and {AWKWARD}"]),
        repr(AWKWARD.encode()),
        json.dumps(AWKWARD),
        json.dumps({"k": [AWKWARD]}, ensure_ascii=False),
        html.escape(AWKWARD),
        html.escape(AWKWARD, quote=False),
        html.escape(AWKWARD).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        quote(AWKWARD),
        quote(AWKWARD, safe=""),
        quote_plus(AWKWARD),
        urlencode({"q": AWKWARD}),
        f"TOKEN={AWKWARD}\n",
    ],
)
def test_a_secret_is_masked_as_it_is_printed(shown: str) -> None:
    masked = Mask([AWKWARD]).text(f"before {shown} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "[masked]" in masked
    for part in ("ss", "rd", "2%", "2%25", "%2B"):
        assert part not in masked.replace("[masked]", "")


@pytest.mark.parametrize("secret", ["it's\\a\x07ü", 'a "quoted"\x07ü', "'\"\x07ü"])
@pytest.mark.parametrize("beside", ["", "'", '"', "'\""])
def test_a_secret_is_masked_whichever_quotes_its_literal_has(secret: str, beside: str) -> None:
    shown = repr(f"{beside}|{secret}|")
    assert Mask([secret]).text(shown).split("|")[1] == "[masked]"


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 31, 32, 33])
def test_base64_alone_is_masked_whole(size: int) -> None:
    secret = "".join(random.Random(size).choices("abcXYZ019?>~", k=size))
    raw = secret.encode()
    for shown in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        assert Mask([secret]).text(f"<{shown.decode()}>") == "<[masked]>"
        bare = shown.decode().rstrip("=")
        assert Mask([secret]).text(f"<{bare}>") == "<[masked]>"


@pytest.mark.parametrize("before", ["", "u", "us", "user:", "a longer name:"])
def test_base64_amid_another_text_gives_away_no_more_than_its_edges(before: str) -> None:
    secret = "hunter2-and-then-some"
    shown = base64.b64encode(f"{before}{secret}|more of it".encode()).decode()
    masked = Mask([secret]).text(shown)
    assert "[masked]" in masked
    left, right = masked.split("[masked]")
    assert base64.b64decode(left[: len(left) // 4 * 4]).decode() == before[: len(left) // 4 * 3]
    assert len(shown) - len(left) - len(right) >= len(secret) * 8 // 6 - 2


@pytest.mark.parametrize("secret", ["", "abc", "   x ", "\n\n", "a\nb"])
def test_short_values_are_not_masked(secret: str) -> None:
    text = "abc x a b  \n\n [1, 2]"
    assert Mask([secret]).text(text) == text


def test_the_white_space_around_a_value_is_no_part_of_the_secret() -> None:
    assert Mask(["tok-123\n"]).text("a tok-123 b") == "a [masked] b"


@pytest.mark.parametrize(
    ("shown", "want"),
    [
        (KEY.strip(), "[masked]"),
        (repr(KEY), "'[masked]\\n'"),
        (json.dumps({"key": KEY}), '{"key": "[masked]\\n"}'),
        (base64.b64encode(KEY.strip().encode()).decode(), "[masked]"),
        ("the line MIIEvQIBADANBgkq\r\nshort", "the line [masked]\r\nshort"),
        ("  1: hkiG9w0BAQEFAASC==", "  1: [masked]"),
    ],
)
def test_a_key_is_masked_whole_and_by_its_long_lines(shown: str, want: str) -> None:
    assert Mask([KEY]).text(shown) == want


@pytest.mark.parametrize(
    ("secrets", "text", "want"),
    [
        (["token", "token-long"], "a token-long token", "a [masked] [masked]"),
        (["token-long", "token"], "a token-long token", "a [masked] [masked]"),
        (["abcdef", "defghi"], "xabcdefghix", "x[masked]x"),
        (["abab"], "xabababx", "x[masked]x"),
        (["aaaa"], "aaaaaaa", "[masked]"),
        (["abcd"], "abcdabcd", "[masked][masked]"),
        (["masked"], "masked", "[masked]"),
    ],
)
def test_secrets_that_overlap_leave_nothing(secrets: list[str], text: str, want: str) -> None:
    assert Mask(secrets).text(text) == want


def test_colours_hide_no_secret_and_stay_where_there_is_none() -> None:
    mask = Mask(["tok-123-xyz"])
    assert mask.text("\x1b[1mtok-\x1b[36m123\x1b[0m-xyz\x1b[0m!") == "[masked]!"
    coloured = "\x1b[1mbold\x1b[0m"
    assert mask.text(coloured) == coloured
    assert mask.text("\x1b[1mtok-123-xyz\x1b[0m") == "\x1b[1m[masked]\x1b[0m"


def test_json_values_are_masked_in_texts_keys_and_numbers() -> None:
    value = {"12345": [12345, 123, True, None, {"a": "x12345"}], "1.25e": 12345.5}
    assert Mask(["12345"]).value(value) == {
        "[masked]": ["[masked]", 123, True, None, {"a": "x[masked]"}],
        "1.25e": 12345.5,
    }


def notebook(*outputs: dict[str, Any], status: str = "completed", **about: Any) -> dict[str, Any]:
    metadata = {"papermill": {"status": status}}
    cell = {"cell_type": "code", "source": "'tok-123'", "metadata": metadata}
    markdown = {"cell_type": "markdown", "source": "tok-123", "metadata": {}}
    return {"metadata": about, "cells": [markdown, {**cell, "outputs": list(outputs)}]}


def test_a_notebook_is_masked_in_a_copy_and_its_sources_are_the_authors() -> None:
    error = {
        "output_type": "error",
        "ename": "tok-123",
        "evalue": "a tok-123",
        "traceback": ["x", "tok-123"],
    }
    png = base64.b64encode(b"tok-123").decode()
    rich = {
        "output_type": "execute_result",
        "execution_count": 1,
        "data": {
            "text/plain": "tok-123",
            "text/html": ["<b>", "tok-123</b>"],
            "application/json": {"tok-123": ["tok-123"]},
            "image/svg+xml": "<text>tok-123</text>",
            "image/png": png,
        },
        "metadata": {"k": "tok-123"},
    }
    spec = {"name": "tok-123"}
    original = notebook(
        error, rich, papermill={"exception": "tok-123"}, widgets={"a": ["tok-123"]}, kernelspec=spec
    )
    before = json.dumps(original)
    masked = Mask(["tok-123"]).notebook(original)
    assert json.dumps(original) == before
    assert masked["metadata"] == {
        "papermill": {"exception": "[masked]"},
        "widgets": {"a": ["[masked]"]},
        "kernelspec": spec,
    }
    assert masked["cells"][0] == original["cells"][0]
    assert masked["cells"][1]["source"] == "'tok-123'"
    assert masked["cells"][1]["outputs"] == [
        {
            "output_type": "error",
            "ename": "[masked]",
            "evalue": "a [masked]",
            "traceback": ["x", "[masked]"],
        },
        {
            "output_type": "execute_result",
            "execution_count": 1,
            "data": {
                "text/plain": "[masked]",
                "text/html": ["<b>", "[masked]</b>"],
                "application/json": {"[masked]": ["[masked]"]},
                "image/svg+xml": "<text>[masked]</text>",
                "image/png": png,
            },
            "metadata": {"k": "[masked]"},
        },
    ]


def test_a_secret_that_a_stream_wrote_in_pieces() -> None:
    outputs = [
        stream("a to"),
        stream(["k-1", "2"]),
        stream("3\n"),
        stream("tok", "stderr"),
        stream("-123"),
    ]
    masked = Mask(["tok-123"]).notebook(notebook(*outputs))
    assert masked["cells"][1]["outputs"] == [
        stream("a [masked]\n"),
        stream("tok", "stderr"),
        stream("-123"),
    ]


@pytest.mark.parametrize(
    ("status", "text", "want"),
    [
        ("running", "a tok-1", "a [masked]"),
        ("running", "a tok", "a tok"),
        ("running", "tok-12 ", "tok-12 "),
        ("completed", "a tok-1", "a tok-1"),
    ],
)
def test_the_begin_of_a_secret_in_a_cell_that_still_runs(status: str, text: str, want: str) -> None:
    masked = Mask(["tok-123"]).notebook(notebook(stream(text), status=status))
    assert masked["cells"][1]["outputs"] == [stream(want)]


def test_a_mask_without_secrets_changes_nothing() -> None:
    text = "\x1b[1ma\x1b[0m b"
    assert Mask([]).text(text) == text
    assert Mask([]).split(text) == (text, "")


def test_masking_a_large_output_takes_little_time() -> None:
    chance = random.Random(1)
    secrets = ["".join(chance.choices("abcdefgh0123456789-_", k=40)) for _ in range(20)]
    text = "\n".join(f"{n} {chance.random()}" for n in range(100_000)) + secrets[7]
    started = time.process_time()
    assert Mask(secrets).text(text).endswith("[masked]")
    assert time.process_time() - started < 2
