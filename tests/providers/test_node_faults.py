"""What becomes of calls that AWS, or the way to it, does not answer as hoped."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from botocore.config import Config

from labfunctions_operator.errors import Denied, InvalidSpec, Transient
from labfunctions_operator.providers.nodes import aws
from labfunctions_operator.providers.nodes.asg import AutoScalingGroup
from labfunctions_operator.reconcile.nodes import Bounds
from tests.providers.aws_servers import REGION, Account, Front

DESCRIBE = "DescribeAutoScalingGroups"
_numbers = count(1)


@pytest.fixture
def name(account: Account) -> str:
    return account.add_group(f"faulty-{next(_numbers)}")


@pytest.fixture
async def pool(name: str, front: Front) -> AsyncIterator[AutoScalingGroup]:
    pool = AutoScalingGroup(name=name, region=REGION)
    yield pool
    await pool.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that give up soon."""
    retries = {"mode": "adaptive", "total_max_attempts": 2}
    config = Config(connect_timeout=1, read_timeout=0.3, retries=retries)
    monkeypatch.setattr(aws, "_CONFIG", config)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("Throttling", 400, (Transient, 3)),
        ("ThrottlingException", 400, (Transient, 3)),
        ("RequestLimitExceeded", 503, (Transient, 3)),
        ("ServiceUnavailable", 503, (Transient, 3)),
        ("ResourceContention", 500, (Transient, 3)),
        ("AccessDenied", 403, (Denied, 1)),
        ("UnauthorizedOperation", 403, (Denied, 1)),
        ("InvalidClientTokenId", 403, (Denied, 1)),
        ("ExpiredToken", 403, (Denied, 1)),
        ("OptInRequired", 403, (Denied, 1)),
        ("ValidationError", 400, (InvalidSpec, 1)),
    ],
)
async def test_refusals(
    code: str,
    status: int,
    expected: tuple[type[Exception], int],
    pool: AutoScalingGroup,
    front: Front,
) -> None:
    kind, attempts = expected
    front.refuse(DESCRIBE, code, status=status)

    with pytest.raises(kind) as caught:
        await pool.read()

    assert f"{code}: no {DESCRIBE} now" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(front.calls) == attempts


async def test_a_short_throttle_is_not_noticed(pool: AutoScalingGroup, front: Front) -> None:
    front.refuse(DESCRIBE, "Throttling", times=1)

    assert (await pool.read()).max == 5
    assert len(front.calls) == 2


async def test_a_write_that_was_throttled_is_made_later(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    seen = await pool.read()
    front.refuse("UpdateAutoScalingGroup", "RequestLimitExceeded", status=503)

    with pytest.raises(Transient):
        await pool.write(Bounds(min=1, max=5), seen)
    front.recover()
    await pool.write(Bounds(min=1, max=5), await pool.read())

    assert account.bounds(name) == (1, 5)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 0}, id="the connection is closed"),
        pytest.param({"status": 200, "body": "<html>sign in</html"}, id="a proxy answers"),
        pytest.param({"status": 502, "body": "bad gateway"}, id="a proxy fails"),
    ],
)
async def test_a_broken_way(fault: dict[str, object], pool: AutoScalingGroup, front: Front) -> None:
    front.fail(DESCRIBE, **fault)

    with pytest.raises(Transient, match="describe_auto_scaling_groups in eu-central-1"):
        await pool.read()

    front.recover()
    assert (await pool.read()).max == 5


async def test_nobody_listens(
    impatient: None, pool: AutoScalingGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(Transient, match="Could not connect"):
        await pool.read()


@pytest.fixture
def service_account(front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What EKS puts into a pod whose service account has a role; returns the token's file."""
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJub25lIn0.e30.")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/labfunctions")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    return token


async def test_the_role_of_a_service_account(
    service_account: Path, pool: AutoScalingGroup, front: Front
) -> None:
    assert (await pool.read()).max == 5
    assert front.calls == ["AssumeRoleWithWebIdentity", DESCRIBE]


async def test_a_role_that_is_refused(
    service_account: Path, pool: AutoScalingGroup, front: Front
) -> None:
    front.refuse("AssumeRoleWithWebIdentity", "InvalidIdentityToken")

    with pytest.raises(Denied, match="InvalidIdentityToken"):
        await pool.read()


async def test_a_token_that_is_not_there(
    service_account: Path, pool: AutoScalingGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", f"{service_account}.gone")

    with pytest.raises(Denied, match="No such file"):
        await pool.read()


async def test_no_credentials(
    pool: AutoScalingGroup, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(Denied, match="Unable to locate credentials"):
        await pool.read()

    assert front.calls == []


async def test_a_region_that_cannot_be(front: Front) -> None:
    pool = AutoScalingGroup(name="any", region="no such")

    with pytest.raises(InvalidSpec) as caught:
        await pool.read()

    assert caught.value.path == "spec.provider.awsAutoScalingGroup"
    await pool.close()


async def test_a_service_that_hangs_is_given_up_on(
    impatient: None, pool: AutoScalingGroup, front: Front
) -> None:
    front.fail(DESCRIBE, delay=30)

    with pytest.raises(Transient, match="Read timeout"):
        await pool.read()

    front.recover()
    assert (await pool.read()).max == 5


async def test_a_call_ends_whatever_the_sdk_does(
    pool: AutoScalingGroup,
    name: str,
    account: Account,
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that was given up on may still come true; the next one waits for it."""
    seen = await pool.read()
    front.fail("UpdateAutoScalingGroup", delay=1, forward=True, times=1)
    monkeypatch.setattr(aws, "CALL_SECONDS", 0.5)

    with pytest.raises(Transient, match=r"no answer within 0\.5 s"):
        await pool.write(Bounds(min=1, max=5), seen)

    monkeypatch.setattr(aws, "CALL_SECONDS", 10)
    assert (await pool.read()).min == 1
    assert front.calls[-2:] == ["UpdateAutoScalingGroup", DESCRIBE]


async def test_others_go_on_while_one_hangs(
    pool: AutoScalingGroup, account: Account, front: Front
) -> None:
    other = AutoScalingGroup(name=account.add_group("quick"), region=REGION)
    seen = await pool.read()
    front.fail("UpdateAutoScalingGroup", delay=30)
    hanging = asyncio.create_task(pool.write(Bounds(min=1, max=5), seen))
    while "UpdateAutoScalingGroup" not in front.calls:  # noqa: ASYNC110 -- the front is a thread
        await asyncio.sleep(0)

    for _ in range(20):
        assert (await other.read()).max == 5

    assert not hanging.done()
    front.ending.set()
    with pytest.raises(Transient):
        await hanging
    await other.close()
