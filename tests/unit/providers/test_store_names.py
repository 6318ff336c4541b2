"""What the store does without a server: names and signatures."""

import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from labfunctions_operator.errors import Denied
from labfunctions_operator.providers.store import Store, ends_with_credentials

KEY = "team/wine/train/run-1/1/notebook.ipynb"


def make(
    prefix: str = "",
    endpoint: str | None = "http://store.example:7070",
    access_key: str | None = "access",
) -> Store:
    return Store(
        endpoint=endpoint,
        region="us-east-1",
        bucket="labfunctions",
        prefix=prefix,
        access_key=access_key,
        secret_key=access_key and "s3cret",
    )


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = make(prefix="/lab/")
    yield made
    made.close()


def test_uri(store: Store) -> None:
    assert store.uri(KEY) == f"s3://labfunctions/lab/{KEY}"


def test_a_signature_is_for_one_key_in_the_path(store: Store) -> None:
    url = urlsplit(store.sign_put(KEY, expires=3600))

    assert (url.scheme, url.netloc) == ("http", "store.example:7070")
    assert url.path == f"/labfunctions/lab/{KEY}"
    query = parse_qs(url.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["3600"]
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert "s3cret" not in url.query


def test_a_signature_lasts_no_longer_than_s3_accepts(store: Store) -> None:
    url = store.sign_put(KEY, expires=30 * 24 * 3600)

    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["604800"]


@pytest.mark.parametrize("temporary", [True, False])
def test_a_signature_by_temporary_credentials_is_known(
    temporary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    if temporary:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "c")
    made = make(access_key=None)
    assert ends_with_credentials(made.sign_get(KEY, expires=60)) is temporary
    made.close()


def test_signing_is_cheap_enough_for_every_job(store: Store) -> None:
    store.sign_put(KEY, expires=60)
    started = time.process_time()
    for _ in range(100):
        store.sign_put(KEY, expires=60)

    assert (time.process_time() - started) / 100 < 0.005


def test_an_endpoint_that_is_no_url() -> None:
    with pytest.raises(Denied, match="not configured well: Invalid endpoint"):
        make(endpoint="store:7070")
