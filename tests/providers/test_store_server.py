"""The store against a real S3 server."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.providers.store import Store
from tests.providers.provider_servers import S3Server

KEY = "team/wine/train/run-1/1/notebook.ipynb"


def connect(server: S3Server, *, secret_key: str | None = None, bucket: str = "lab") -> Store:
    return Store(
        endpoint=server.url,
        region="us-east-1",
        bucket=bucket,
        prefix="some/prefix",
        access_key=server.access_key,
        secret_key=secret_key or server.secret_key,
    )


@pytest.fixture
def store(s3_server: S3Server) -> Iterator[Store]:
    made = connect(s3_server)
    made.ensure_bucket()
    yield made
    made.close()


def http(method: str, url: str, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_bucket_is_made_once(store: Store) -> None:
    store.put_json("a.json", {})
    store.ensure_bucket()

    assert store.exists("a.json")


def test_what_is_written_is_read(store: Store) -> None:
    first = store.put_json("run.json", {"run": "é", "attempts": [1, 2]})

    assert json.loads(store.get("run.json")) == {"run": "é", "attempts": [1, 2]}
    assert store.put_json("run.json", {"attempts": [1, 2], "run": "é"}) == first
    assert store.put_json("run.json", {}) != first


def test_what_is_not_there(store: Store) -> None:
    assert not store.exists("none")
    with pytest.raises(NotFound, match="could not read none in the store"):
        store.get("none")


def test_a_signed_url_writes_its_key_as_often_as_needed(store: Store) -> None:
    url = store.sign_put(KEY, expires=60)

    assert http("PUT", url, b"first") == 200
    assert http("PUT", url, b"second") == 200

    assert store.get(KEY) == b"second"


def test_a_signed_url_is_good_for_nothing_else(store: Store) -> None:
    url = store.sign_put(KEY, expires=60)
    http("PUT", url, b"x")

    assert http("PUT", url.replace("notebook.ipynb", "result.json"), b"x") == 403
    assert http("GET", url) == 403
    assert http("DELETE", url) == 403
    assert not store.exists(KEY.replace("notebook.ipynb", "result.json"))


def test_a_signed_link_reads_its_key_and_does_nothing_else(store: Store) -> None:
    store.put_json(KEY, {"cells": []})
    store.put_json("other", {})
    url = store.sign_get(KEY, expires=60)
    with urllib.request.urlopen(url) as answer:
        assert json.load(answer) == {"cells": []}
    assert http("PUT", url, b"{}") == 403
    assert http("DELETE", url) == 403
    assert http("GET", url.replace(KEY, "other")) == 403


def test_what_is_long_is_not_read(store: Store) -> None:
    store.put_json(KEY, "x" * 98)
    assert store.get_short(KEY, 100) == b'"' + b"x" * 98 + b'"'
    assert store.get_short(KEY, 99) is None
    with pytest.raises(NotFound):
        store.get_short("nothing", 99)


def test_only_what_lies_in_the_store_has_a_key(store: Store) -> None:
    assert store.key_of(store.uri(KEY)) == KEY
    assert store.key_of("s3://lab/elsewhere/notebook.ipynb") is None
    assert store.key_of("s3://other/some/prefix/notebook.ipynb") is None


def test_a_signed_url_ends(store: Store) -> None:
    url = store.sign_put(KEY, expires=1)
    time.sleep(2.1)

    assert http("PUT", url, b"x") == 403


def test_wrong_credentials(store: Store, s3_server: S3Server) -> None:
    stranger = connect(s3_server, secret_key="wrong")

    for call in (
        stranger.ensure_bucket,
        lambda: stranger.put_json("a.json", {}),
        lambda: stranger.get("a.json"),
        lambda: stranger.exists("a.json"),
    ):
        with pytest.raises(Denied) as caught:
            call()
        assert s3_server.url in str(caught.value)
        assert "\n" not in str(caught.value)
    stranger.close()


def test_no_bucket(s3_server: S3Server) -> None:
    store = connect(s3_server, bucket="none")

    with pytest.raises(NotFound, match="bucket none"):
        store.put_json("a.json", {})
    store.close()


def test_a_bucket_name_that_cannot_be(s3_server: S3Server) -> None:
    store = connect(s3_server, bucket="no/such bucket")

    with pytest.raises(Denied, match="Invalid bucket name"):
        store.ensure_bucket()
    store.close()


def test_an_outage_is_transient_and_ends(store: Store, s3_server: S3Server) -> None:
    store.put_json("a.json", {"a": 1})
    s3_server.stop()

    started = time.monotonic()
    with pytest.raises(Transient, match=r"could not write b\.json in the store"):
        store.put_json("b.json", {})
    with pytest.raises(Transient):
        store.exists("a.json")
    assert time.monotonic() - started < 30
    assert store.sign_put(KEY, expires=60)

    s3_server.start()
    assert json.loads(store.get("a.json")) == {"a": 1}
    assert store.put_json("b.json", {})
