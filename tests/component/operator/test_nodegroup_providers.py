"""A pool elsewhere that works, and one that is down, slow, throttled or denied: Runs go on."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from dev.cluster.kubectl import Kubectl
from tests.providers.aws_servers import CREDENTIALS, REGION, Account, Front, serve_moto
from tests.providers.provider_servers import Repository, S3Server

from ..test_cluster_api import CAPACITY, KINDS, MACHINE_CRD, MAX, MIN
from . import process
from .api import condition, until
from .autoscaler import Autoscaler
from .bench import Bench
from .sizing import AUTOSCALING, Pool, watched_pool

DESCRIBE = "DescribeAutoScalingGroups"
UPDATE = "UpdateAutoScalingGroup"
RAISED = "labfunctions.io/raised-until"
TEMPLATE = "k8s.io/cluster-autoscaler/node-template"
_numbers = count()


@pytest.fixture(scope="module")
def moto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serve_moto(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture(scope="module")
def account(moto_port: int) -> Iterator[Account]:
    account = Account(moto_port)
    yield account
    account.close()


@pytest.fixture(scope="module")
def _front(moto_port: int) -> Iterator[Front]:
    with Front(moto_port).serve() as front:
        yield front


@pytest.fixture
def front(_front: Front) -> Iterator[Front]:
    yield _front
    _front.recover()


@pytest.fixture(scope="module")
def sizing_env(_front: Front, store: S3Server) -> dict[str, str]:
    # Of the store, which has keys of its own.
    own = {"AWS_ENDPOINT_URL_S3": store.url}
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": _front.url, **own}


@pytest.fixture
def pool(sizing_bench: Bench) -> Iterator[Pool[Autoscaler]]:
    with watched_pool(sizing_bench, Autoscaler) as pool:
        yield pool


@pytest.fixture
def group(account: Account) -> str:
    return account.add_group(f"asg-{next(_numbers)}", high=3)


def on(group: str) -> dict[str, object]:
    return {"provider": {"awsAutoScalingGroup": {"name": group, "region": REGION}}}


def test_a_pool_is_raised_while_runs_need_it_and_lowered_after(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(**on(group))
    names = pool.prepare(repository, 2)
    until(lambda: account.bounds(group) == (2, 3), "the minimum is raised")
    assert account.tags(group)[RAISED] == pool.status["wanted"]["until"]
    assert account.group(group)["DesiredCapacity"] == 2
    for name in names:
        pool.finish(name)
    until(lambda: account.bounds(group) == (0, 3), "the minimum is lowered")
    until(lambda: RAISED not in account.tags(group), "the mark is gone")
    pool.await_status(desired=0, min=0)
    assert pool.placeholders() == []


def test_an_eks_node_group_is_raised_and_lowered(
    pool: Pool[Autoscaler], account: Account, repository: Repository
) -> None:
    cluster = f"cluster-{next(_numbers)}"
    behind = account.add_nodegroup(cluster, "gpu", low=0, high=3, desired=0)
    pool.create(
        provider={"eksNodegroup": {"cluster": cluster, "name": "gpu", "region": REGION}},
    )
    [name] = pool.prepare(repository, 1)
    until(
        lambda: account.scaling(cluster, "gpu") == {"minSize": 1, "maxSize": 3, "desiredSize": 1},
        "the minimum is raised",
    )
    tags = account.tags(behind)
    assert tags[RAISED] == pool.status["wanted"]["until"]
    assert tags[f"{TEMPLATE}/label/pool"] == pool.name
    assert tags[f"{TEMPLATE}/resources/nvidia.com/gpu"] == "1"
    pool.finish(name)
    until(
        lambda: account.scaling(cluster, "gpu")["minSize"] == 0,
        "the minimum is lowered",
    )
    until(lambda: RAISED not in account.tags(behind), "the mark is gone")
    pool.await_status(desired=0, min=0)
    assert condition(pool.obj, "Drifted")["status"] == "False"


@pytest.fixture
def machines(kubectl: Kubectl, namespace: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Make a MachineDeployment; returns what reads its annotations."""
    kind = "machinedeployment"
    names = {"kind": "MachineDeployment", "singular": kind, "plural": f"{kind}s"}
    kubectl.apply(MACHINE_CRD.format(version=KINDS["MachineDeployment"], **names))
    crd = f"crd/{kind}s.cluster.x-k8s.io"
    kubectl.await_kinds(crd)
    kubectl.apply(
        f"apiVersion: cluster.x-k8s.io/{KINDS['MachineDeployment']}\nkind: MachineDeployment\n"
        f"metadata: {{name: gpu, namespace: {namespace}}}\nspec: {{replicas: 0}}\n"
    )

    def told() -> dict[str, str]:
        text = kubectl.run("get", kind, "gpu", "--namespace", namespace, "--output=json")
        found: dict[str, str] = json.loads(text)["metadata"].get("annotations", {})
        return found

    yield told
    kubectl.run("delete", crd)


def test_machines_are_bounded_by_annotations_that_go_with_the_need(
    pool: Pool[Autoscaler],
    namespace: str,
    machines: Callable[[], dict[str, str]],
    repository: Repository,
) -> None:
    pool.create(provider={"clusterApi": {"name": "gpu", "namespace": namespace}})
    [name] = pool.prepare(repository, 1)
    until(
        lambda: (machines().get(MIN), machines().get(MAX)) == ("1", "3"),
        "the minimum is raised",
    )
    assert machines()[RAISED] == pool.status["wanted"]["until"]
    pool.finish(name)
    until(lambda: machines()[MIN] == "0" and RAISED not in machines(), "it is lowered")
    # The node that came has shown what nodes of the group are like.
    assert machines()[f"{CAPACITY}/cpu"] == "4"
    assert machines()[f"{CAPACITY}/gpu-count"] == "1"
    pool.await_status(desired=0, min=0)
    assert condition(pool.obj, "Drifted")["status"] == "False"


def test_a_restart_writes_nothing(
    pool: Pool[Autoscaler], group: str, account: Account, front: Front
) -> None:
    pool.create(min=1, **on(group))
    until(lambda: account.bounds(group) == (1, 3), "the minimum is set")
    pool.await_status(written={"min": 1, "max": 3})
    tags, version = account.tags(group), pool.obj["metadata"]["resourceVersion"]
    assert pool.bench.operator.stop() == 0
    front.forget()
    pool.bench.operator.ensure()
    # It is read, and compared with what is wanted.
    until(lambda: front.calls.count(DESCRIBE) >= 3, "the pool is looked at")
    time.sleep(1)
    assert front.writes == []
    assert account.tags(group) == tags
    assert pool.obj["metadata"]["resourceVersion"] == version


def test_a_note_that_somebody_deleted_comes_back(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(**on(group))
    [name] = pool.prepare(repository, 1)
    until(lambda: RAISED in account.tags(group), "the minimum is raised")
    until(lambda: account.bounds(group) == (1, 3), "the minimum is raised")
    account.untag(group, RAISED)
    pool.bench.operator.restart()
    until(lambda: RAISED in account.tags(group), "the mark is back")
    assert condition(pool.obj, "Drifted")["status"] == "False"
    pool.finish(name)


def test_another_pool_is_taken_over_and_the_first_one_is_let_go(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    other = account.add_group(f"asg-{next(_numbers)}", high=10)
    pool.create(**on(group))
    [name] = pool.prepare(repository, 1)
    until(lambda: account.bounds(group) == (1, 3), "the minimum is raised")
    pool.patch(**on(other))
    until(lambda: account.bounds(other) == (1, 3), "the other one is raised")
    until(lambda: account.bounds(group) == (0, 3), "the first one is lowered")
    assert condition(pool.obj, "Drifted")["status"] == "False"
    pool.finish(name)


def test_a_raise_ends_though_the_spec_is_refused(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(**on(group))
    [name] = pool.prepare(repository, 1)
    until(lambda: account.bounds(group) == (1, 3), "the minimum is raised")
    pool.patch(warm=[{"schedule": "0 0 31 2 *", "duration": "1h", "min": 1}])
    until(
        lambda: condition(pool.obj, "Ready").get("reason") == "InvalidSpec",
        "it is refused",
    )
    assert account.bounds(group) == (1, 3)
    # Its time is over.
    wanted = {**pool.status["wanted"], "until": "2026-01-01T00:00:00Z"}
    pool.bench.api.patch(
        "NodeGroup", "", pool.name, {"status": {"wanted": wanted}}, subresource="/status"
    )
    until(lambda: account.bounds(group) == (0, 3), "the minimum is lowered")
    assert condition(pool.obj, "Ready")["reason"] == "InvalidSpec"
    pool.finish(name)


def test_a_group_that_is_deleted_takes_its_raise_along_and_leaves_its_runs_alone(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(max=2, **on(group))
    running, waiting = pool.prepare(repository, 2)
    until(lambda: account.bounds(group) == (2, 2), "the minimum is raised")
    pool.running_pod(running)
    account.untag(group, RAISED)
    pool.bench.api.delete("NodeGroup", "", pool.name)
    until(lambda: account.bounds(group) == (0, 2), "the minimum is lowered")
    until(lambda: RAISED not in account.tags(group), "the mark is gone")
    pool.finish(running)
    pool.finish(waiting)


def test_a_node_that_may_not_be_given_back_keeps_nothing_else_up(
    pool: Pool[Autoscaler],
    group: str,
    account: Account,
    repository: Repository,
    kubectl: Kubectl,
) -> None:
    """As one that was cordoned before the chart took the right to nodes away."""
    pool.autoscaler.is_paused = True
    process.grant_rights(kubectl, "autoscaling.enabled=true")
    pool.create(**on(group))
    name = f"{pool.name}-leaving"
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": pool.autoscaler.labels},
    }
    pool.bench.create(node)
    node["metadata"] = {
        "name": name,
        "annotations": {"labfunctions.io/releasing": "2026-01-01T00:00:00Z"},
    }
    cordoned = json.dumps({**node, "spec": {"unschedulable": True}})
    as_operator = ("apply", "--server-side", "--field-manager=labfunctions", "-f", "-")
    kubectl.run(*as_operator, text=cordoned)
    until(lambda: condition(pool.obj, "Ready").get("reason") == "Forbidden", "it says so")
    pool.prepare(repository, 1)
    until(lambda: account.bounds(group) == (1, 3), "the minimum is raised")
    ready = condition(pool.obj, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Forbidden")
    assert 'cannot patch resource "nodes"' in ready["message"]
    assert pool.status["desired"] == 1
    process.grant_rights(kubectl, *AUTOSCALING)
    pool.patch(max=4)
    until(lambda: condition(pool.obj, "Ready").get("status") == "True", "it is Ready")
    found = pool.bench.api.get("Node", "", name)
    assert found is not None
    assert "unschedulable" not in found["spec"]


def test_an_operator_killed_after_a_raise_undoes_it(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(**on(group))
    [name] = pool.prepare(repository, 1)
    until(lambda: account.bounds(group) == (1, 3), "the minimum is raised")
    pool.bench.operator.kill()
    pool.bench.kubelet.finish(pool.running_pod(name), {"reason": "Succeeded", "message": "ok"})
    pool.bench.operator.ensure()
    until(lambda: account.bounds(group) == (0, 3), "the minimum is lowered")


def test_a_change_by_somebody_else_stays(
    pool: Pool[Autoscaler], group: str, account: Account, repository: Repository
) -> None:
    pool.create(**on(group))
    pool.await_status(written={"min": 0, "max": 3})
    account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=9)
    pool.prepare(repository, 1)
    until(lambda: condition(pool.obj, "Drifted").get("status") == "True", "drift is said")
    assert account.bounds(group) == (0, 9)
    pool.patch(max=4)
    until(lambda: account.bounds(group)[1] == 4, "an edit takes it over")


def down(front: Front) -> None:
    front.fail(DESCRIBE)


def slow(front: Front) -> None:
    # Longer than the SDK waits: no answer comes in time, however slow this machine is.
    front.fail(DESCRIBE, delay=12, forward=True)


def throttled(front: Front) -> None:
    front.refuse(DESCRIBE, "Throttling")


def denied(front: Front) -> None:
    front.refuse(DESCRIBE, "AccessDenied", status=403)


# Failures in a row are tried ever later: a slow machine has had more of them.
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (down, "ProviderUnavailable"),
        (slow, "Reading"),
        (throttled, "ProviderUnavailable"),
        (denied, "Forbidden"),
    ],
)
def test_runs_go_on_while_the_provider_does_not(
    fault: Callable[[Front], None],
    reason: str,
    *,
    pool: Pool[Autoscaler],
    group: str,
    front: Front,
    account: Account,
    repository: Repository,
) -> None:
    fault(front)
    pool.create(min=1, **on(group))
    until(
        lambda: condition(pool.obj, "Ready").get("reason") == reason,
        f"it says {reason}",
    )
    assert condition(pool.obj, "ScalingActive")["status"] == "False"
    [name] = pool.prepare(repository, 1)
    pool.finish(name)
    if fault is not slow:  # it answers in the end
        assert account.bounds(group) == (0, 3)
    if fault is not denied:  # that is tried again after a minute
        front.recover()
        until(lambda: account.bounds(group) == (1, 3), "it recovers", seconds=90)
        until(lambda: condition(pool.obj, "Ready").get("status") == "True", "it says so")
