"""Messages over HTTP, to servers that answer well, badly, late or never."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify import discord, slack, web, webhook
from labfunctions_operator.providers.notify.gate import Gate, Undeliverable
from tests.providers.notify_servers import (
    HttpServer,
    Reply,
    answer,
    broken,
    close_at_once,
    endless,
    hang,
    http_server,
    slow,
)

SECRET = "T0KEN-in-the-path"


def gate(*servers: HttpServer) -> Gate:
    return Gate(tuple(server.host for server in servers))


async def post(server: HttpServer, body: Any = None, **headers: str) -> None:
    await webhook.post(
        body or {"title": "it failed"},
        url=f"{server.url}/{SECRET}",
        headers=headers,
        content_type=webhook.JSON,
        gate=gate(server),
    )


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 1.0)


async def test_a_webhook_gets_the_message_and_the_headers_of_its_secret() -> None:
    async with http_server(answer(204, "")) as server:
        await post(server, {"title": "é"}, Authorization="Bearer 1")
    [request] = server.requests
    assert (request.method, request.path, request.json) == ("POST", f"/{SECRET}", {"title": "é"})
    assert request.headers["authorization"] == "Bearer 1"
    assert request.headers["content-type"] == "application/json"


async def test_a_slow_answer_is_waited_for() -> None:
    async with http_server(slow(0.3)) as server:
        await post(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        (answer(429, "slow down", Retry_After="7"), 7.0),
        (answer(429, "slow down", Retry_After="1e9"), 3600.0),
        (answer(429, "slow down", Retry_After="soon"), None),
        (answer(429, "slow down", Retry_After="nan"), None),
        (answer(503, "", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 0.0),
        (answer(500, "oops"), None),
        (answer(408, ""), None),
        (hang, None),
        (close_at_once, None),
        (broken(503), None),
    ],
)
async def test_what_may_pass_is_tried_again(reply: Reply, after: float | None) -> None:
    async with http_server(reply) as server:
        with pytest.raises(Transient) as failed:
            await post(server)
    assert failed.value.retry_after == after
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
async def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    async with http_server(answer(status, "no\r\nSet-Cookie: x")) as server:
        with pytest.raises(Undeliverable, match=f"the server answered {status}: no$") as failed:
            await post(server)
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize("reply", [endless, broken(200), broken(200, "Content-Encoding: gzip")])
async def test_who_says_that_it_took_a_message_has_it(reply: Reply) -> None:
    async with http_server(reply) as server:
        await post(server)
    assert len(server.requests) == 1


async def test_a_refusal_counts_although_its_words_break_off() -> None:
    async with http_server(broken(404)) as server:
        with pytest.raises(Undeliverable, match=r"the server answered 404$"):
            await post(server)


async def test_a_server_that_is_not_there_is_tried_again_and_its_path_not_told() -> None:
    async with http_server() as server:
        pass
    with pytest.raises(Transient) as failed:
        await post(server)
    assert SECRET not in str(failed.value)


async def test_redirects_that_keep_a_post_are_followed_without_the_secret_headers() -> None:
    async with http_server() as second, http_server() as first:
        first.replies = [answer(307, "", Location=f"{second.url}/new")]
        await webhook.post(
            {"a": 1},
            url=first.url,
            headers={"Authorization": "secret"},
            content_type=webhook.JSON,
            gate=gate(first, second),
        )
    [request] = second.requests
    assert (request.method, request.path, request.json) == ("POST", "/new", {"a": 1})
    assert "authorization" in first.requests[0].headers
    assert "authorization" not in request.headers


async def test_a_redirect_on_the_same_server_keeps_the_headers() -> None:
    async with http_server(answer(308, "", Location="/new"), answer()) as server:
        await post(server, Authorization="1")
    assert [r.headers.get("authorization") for r in server.requests] == ["1", "1"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer(307, "", Location="http://169.254.169.254/latest"), "allowedHosts"),
        (answer(307, "", Location="http://localhost:1/"), "allowedHosts"),
        (answer(308, "", Location="file:///etc/passwd"), "not an http"),
        (answer(308, "", Location="http://a:b@127.0.0.1/"), "credentials"),
        (answer(307, "", Location="/again"), "too often"),
        (answer(302, "", Location="/new"), "only 307 and 308"),
        (answer(307, ""), "only 307 and 308"),
    ],
)
async def test_other_redirects_are_refused(reply: Reply, why: str) -> None:
    async with http_server(reply) as server:
        with pytest.raises(Undeliverable, match=why):
            await post(server)
    assert len(server.requests) <= web.REDIRECTS + 1


@pytest.mark.parametrize("name", ["Host", "Content-Length", "a b", "Ünicode", ""])
async def test_a_header_that_is_none_is_refused(name: str) -> None:
    async with http_server() as server:
        with pytest.raises(Undeliverable, match="cannot be sent as a header"):
            await post(server, **{name: "1"})
        with pytest.raises(Undeliverable, match="cannot be sent as a header"):
            await post(server, Fine="a\r\nHost: b")
    assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://a/", "http:///x", "http://a:0/", "http://a b/", "", "//a"])
async def test_an_address_that_is_none_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(Undeliverable) as failed:
        await webhook.post({}, url=url, headers={}, content_type=webhook.JSON, gate=Gate(("*",)))
    assert "a b" not in str(failed.value)


async def test_discord_is_asked_to_say_whether_it_has_taken_the_message() -> None:
    async with http_server(answer(200, {"id": "1"})) as server:
        url = f"{server.url}/api/webhooks/1/{SECRET}?thread_id=7&wait=false"
        await discord.post_to_webhook({"embeds": []}, url=url, gate=gate(server))
    assert server.requests[0].path == f"/api/webhooks/1/{SECRET}?thread_id=7&wait=true"


async def test_slacks_webhook_takes_the_blocks() -> None:
    async with http_server(answer()) as server:
        await slack.post_to_webhook({"text": "x", "blocks": []}, url=server.url, gate=gate(server))
        server.replies = [answer(404, "no_service")]
        with pytest.raises(Undeliverable, match="404: no_service"):
            await slack.post_to_webhook({"text": "x"}, url=server.url, gate=gate(server))
    assert server.requests[0].json == {"text": "x", "blocks": []}


async def as_bot(server: HttpServer) -> None:
    await slack.post_to_channel(
        {"text": "x", "blocks": [{"type": "divider"}]},
        token="xoxb-1",
        channel="alerts",
        base_url=f"{server.url}/api/",
        gate=gate(server),
    )


async def test_slacks_bot_posts_to_a_channel() -> None:
    async with http_server(answer(200, {"ok": True, "ts": "1"})) as server:
        await as_bot(server)
    [request] = server.requests
    assert request.path == "/api/chat.postMessage"
    assert request.headers["authorization"] == "Bearer xoxb-1"
    sent = request.json
    assert (sent["channel"], sent["text"], sent["blocks"]) == (
        "alerts",
        "x",
        [{"type": "divider"}],
    )
    assert (sent["parse"], sent["link_names"]) == ("none", False)


@pytest.mark.parametrize(
    "word", ["invalid_auth", "channel_not_found", "not_in_channel", "is_" * 99]
)
async def test_slacks_refusals_are_not_tried_again(word: str) -> None:
    async with http_server(answer(200, {"ok": False, "error": word})) as server:
        with pytest.raises(Undeliverable, match=f"Slack says {word[:100]}$"):
            await as_bot(server)


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        (answer(429, {"ok": False, "error": "ratelimited"}, Retry_After="30"), 30.0),
        (answer(200, {"ok": False, "error": "internal_error"}), None),
        (answer(503, {"ok": False, "error": "whatever"}), None),
        (answer(502, "<html>"), None),
        (answer(200, {}), None),
        (answer(200, "<html>"), None),
        (answer(200, [1]), None),
        (broken(200), None),
        (close_at_once, None),
        (endless, None),
        (hang, None),
    ],
)
async def test_slacks_troubles_are_waited_for(reply: Reply, after: float | None) -> None:
    async with http_server(reply) as server:
        with pytest.raises(Transient) as failed:
            await as_bot(server)
    assert failed.value.retry_after == after
    assert "xoxb" not in str(failed.value)


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    made, key = tmp_path / "crt", tmp_path / "key"
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-nodes", "-keyout", key, "-out", made, "-days", "1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context


async def test_a_server_with_a_certificate_that_nobody_knows_is_not_trusted(
    certificate: ssl.SSLContext,
) -> None:
    async with http_server(context=certificate) as server:
        with pytest.raises(Transient, match="certificate"):
            await post(server)
    assert server.requests == []
