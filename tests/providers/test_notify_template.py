"""A Project's own text: rendered apart, whatever it tries."""

import asyncio
import time
from pathlib import Path

import pytest

from labfunctions_operator.providers.notify import template
from labfunctions_operator.providers.notify.gate import Undeliverable


async def text(source: str, **variables: object) -> str:
    return (await template.Renderer().render({"text": source}, variables))["text"]


async def test_a_template_says_what_it_was_given() -> None:
    source = "{{ run }}{% for line in output %} {{ loop.index }}:{{ line }}{% endfor %}"
    assert await text(source, run="report-1", output=["a", "<b>"]) == "report-1 1:a 2:<b>"


@pytest.mark.parametrize(
    "source",
    [
        "{{ missing }}",
        "{% if %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{{ output.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ 1/0 }}",
        "{{ range(10**9) | list }}",
        "{{ ('x' * (size * 100)) | length }}",
    ],
)
async def test_what_is_wrong_or_not_allowed_is_said(source: str) -> None:
    with pytest.raises(Undeliverable, match="the template fails: "):
        await text(source, output=[], size=2**20)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{% set a = namespace(x='xxxxxxxx') %}{% for i in range(99) %}"
        "{% set a.x = a.x ~ a.x %}{% endfor %}",
    ],
)
async def test_what_never_ends_or_never_fits_is_stopped_and_stalls_nobody(source: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    with pytest.raises(Undeliverable):
        await text(source)
    ticking.cancel()
    assert ticks >= (time.monotonic() - started) / 0.5


async def test_output_is_cut() -> None:
    source = "{% for a in range(9999) %}{{ 'x' * 100 }}{% endfor %}"
    assert len(await text(source)) == 16 * 1024


async def test_one_template_is_rendered_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "alone.py"
    program.write_text(
        "import os, time\n"
        f"os.mkdir({str(tmp_path / 'busy')!r})\n"
        "time.sleep(0.1)\n"
        f"os.rmdir({str(tmp_path / 'busy')!r})\n"
        "print('{\"rendered\": {}}')\n"
    )
    monkeypatch.setattr(template, "SANDBOX", program)
    renderer = template.Renderer()
    await asyncio.gather(*(renderer.render({}, {}) for _ in range(4)))


def test_the_sandbox_knows_nothing_of_the_operator() -> None:
    source = Path(template.SANDBOX).read_text()
    assert "labfunctions_operator" not in source
