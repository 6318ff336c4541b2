"""Whatever dies in between: one Job for an attempt, one for a build, and all of it completes."""

import time
from collections import Counter

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.controllers.world import World
from tests.providers.provider_servers import Repository

from .api import until
from .bench import Bench
from .kubelet import SUCCEEDED
from .objects import built_project, inline_run, project, run, workflow


def test_kill_between_run_and_job(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.operator.kill()
    bench.create(inline_run(bench.namespace))
    bench.operator.ensure()
    # Again, when the Job exists and nothing of it is in the Run's status.
    until(lambda: bench.jobs(run="first"), "the Job is created")
    bench.operator.kill()
    assert not bench.get("Run", "first").get("status", {}).get("attempts")
    bench.operator.ensure()
    bench.complete("first")
    assert bench.footprint.count(bench.namespace, "create jobs") == 1


def test_kill_in_mid_build(bench: Bench, repository: Repository) -> None:
    bench.create(
        built_project(bench.namespace, repository.url),
        workflow(bench.namespace),
        run(bench.namespace),
    )
    pod = bench.build_pod()
    bench.operator.kill()
    bench.operator.ensure()
    bench.await_reason("Run", "first", "ImageBuilding")
    bench.operator.kill()
    digest = "sha256:" + "d" * 64
    bench.kubelet.finish_build(pod, {"digest": digest})
    until(lambda: bench.builds()[0]["status"].get("succeeded"), "the build's Job is complete")
    bench.operator.ensure()
    done = bench.complete("first")
    assert done["status"]["snapshot"]["image"].endswith(digest)
    assert len(bench.builds()) == 1
    assert bench.footprint.count(bench.namespace, "create jobs") == 2


def test_kill_in_mid_run(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    running = bench.await_reason("Run", "first", "Running")
    bench.operator.kill()
    # An edit of what the Run was started from changes nothing for it.
    bench.patch("Project", "wine", runtimes=[{"name": "default", "image": "registry.test/new"}])
    bench.kubelet.finish(pod, SUCCEEDED)
    until(lambda: bench.jobs(run="first")[0]["status"].get("succeeded"), "the Job is complete")
    bench.operator.ensure()
    done = bench.await_reason("Run", "first", "Succeeded")
    assert done["status"]["snapshot"] == running["status"]["snapshot"]
    assert done["status"]["outputs"]["notebook"].endswith("/1/notebook.ipynb")
    assert bench.footprint.count(bench.namespace, "create jobs") == 1


def test_run_deleted_while_the_operator_is_away(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    bench.pod("first")
    bench.operator.kill()
    bench.api.delete("Run", bench.namespace, "first")
    bench.operator.ensure()
    until(lambda: not bench.jobs(run="first"), "the Job is gone")


def test_restart_of_the_api_server_in_mid_run(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(
        built_project(bench.namespace, repository.url),
        workflow(bench.namespace),
        run(bench.namespace),
    )
    bench.build("a")
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    control_plane.restart_apiserver()
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")
    # All of it still works: our kinds are followed, sources are, builds and Runs are started.
    repository.commit({"lib.py": "x = 1"})
    image = bench.build("b")
    bench.create(run(bench.namespace, "second"))
    assert bench.complete("second")["status"]["snapshot"]["image"] == image
    assert bench.footprint.count(bench.namespace, "create jobs") == 4


def test_late_answer_does_not_bring_a_deleted_object_back() -> None:
    cache = World().caches["Project"]
    for version, uid in (("5", "old"), ("9", "new")):
        obj = project("team", "https://git.test/wine.git")
        obj["metadata"] |= {"uid": uid, "resourceVersion": version}
        assert cache.upsert(obj)
        cache.remove(obj)
        written = {**obj, "metadata": {**obj["metadata"], "resourceVersion": f"{version}1"}}
        assert not cache.upsert(written)
    assert cache.objects() == []


def test_deleted_project_is_forgotten(
    bench: Bench, repository: Repository, asked: Counter[str]
) -> None:
    """Even when its status is being written at that moment."""
    for number in range(10):
        name = f"p{number}"
        bench.create(project(bench.namespace, repository.url, name, git={"ref": "nowhere"}))
        bench.await_status("Project", name)
        bench.api.delete("Project", bench.namespace, name)
    time.sleep(2)
    before = asked[repository.bare.name]
    time.sleep(3)
    assert asked[repository.bare.name] == before
