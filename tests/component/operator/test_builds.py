"""One build for one set of inputs, and what becomes of it."""

import time

from tests.providers.provider_servers import Repository

from .api import Object, condition, until
from .bench import Bench
from .objects import built_project, notebook, run, workflow


def commit_of(project: Object) -> str:
    return str(project["status"]["source"]["commit"])


def await_commit(bench: Bench, commit: str) -> None:
    until(lambda: commit_of(bench.get("Project", "wine")) == commit, f"{commit} is known")


def test_same_inputs_are_built_once(bench: Bench, repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    bench.create(built_project(bench.namespace, repository.url))
    image = bench.build("a")
    requirements = repository.work / "requirements.txt"
    before = requirements.read_text()
    repository.commit({"requirements.txt": "pandas==2.3.0\n"})
    assert bench.build("b") != image
    # Back to what was built before, by a new commit, by a tag, by a restart of the operator.
    third = repository.commit({"requirements.txt": before})
    await_commit(bench, third)
    [runtime] = bench.get("Project", "wine")["status"]["runtimes"]
    assert (runtime["phase"], runtime["image"]) == ("Ready", image)
    bench.patch("Project", "wine", source={"git": {"ref": first}})
    await_commit(bench, first)
    bench.operator.restart()
    time.sleep(2)
    assert bench.get("Project", "wine")["status"]["runtimes"][0]["image"] == image
    assert bench.footprint.count(bench.namespace, "create jobs") == 2


def test_commit_outside_of_path_builds_nothing(bench: Bench, repository: Repository) -> None:
    repository.commit({"wine/analysis.ipynb": notebook()})
    bench.create(built_project(bench.namespace, repository.url, git={"path": "wine"}))
    image = bench.build("a")
    commit = repository.commit({"README.md": "Wine"}, "Explain")
    await_commit(bench, commit)
    found = bench.get("Project", "wine")
    assert found["status"]["source"]["message"] == "Explain"
    assert found["status"]["runtimes"][0]["image"] == image
    assert len(bench.builds()) == 1
    repository.commit({"wine/analysis.ipynb": notebook("trees = 200")})
    bench.build("b")
    assert len(bench.builds()) == 2


def test_commits_during_a_build_wait_for_its_end(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url))
    pod = bench.build_pod()
    for number in range(2):
        commit = repository.commit({"lib.py": f"x = {number}"})
        await_commit(bench, commit)
    assert len(bench.builds()) == 1
    bench.kubelet.finish_build(pod, {"digest": "sha256:" + "a" * 64})
    bench.build("b")
    # The commit in between was overtaken.
    assert len(bench.builds()) == 2
    [version, newer] = bench.get("Project", "wine")["status"]["versions"]
    assert (version["image"][-1], newer["image"][-1]) == ("a", "b")


def test_suspended_project_follows_nothing(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    image = bench.build("a")
    bench.patch("Project", "wine", suspend=True)
    bench.await_reason("Project", "wine", "Suspended")
    first = commit_of(bench.get("Project", "wine"))
    second = repository.commit({"lib.py": "x = 1"})
    bench.create(run(bench.namespace))
    assert bench.complete("first")["status"]["snapshot"]["image"] == image
    time.sleep(2)
    assert commit_of(bench.get("Project", "wine")) == first
    bench.patch("Project", "wine", suspend=False)
    bench.build("b")
    assert commit_of(bench.get("Project", "wine")) == second


def test_new_image_is_for_new_runs(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    old = bench.build("a")
    bench.create(run(bench.namespace, "old"))
    pod = bench.pod("old")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "old", "Running")
    repository.commit({"lib.py": "x = 1"})
    new = bench.build("b")
    bench.create(run(bench.namespace, "new"))
    done = bench.complete("new")
    assert done["status"]["snapshot"]["image"] == new
    found = bench.get("Run", "old")
    assert found["status"]["phase"] == "Running"
    assert found["status"]["snapshot"]["image"] == old
    [container] = bench.pod_spec("old")["containers"]
    assert container["image"] == old


def test_failed_build_keeps_the_last_image_until_a_commit_mends_it(
    bench: Bench, repository: Repository
) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    good = bench.build("a")
    repository.commit({"requirements.txt": "no-such-package==1\n"})
    error = "No matching distribution found for no-such-package==1"
    bench.kubelet.finish_build(bench.build_pod(), {"error": error})
    found = bench.await_reason("Project", "wine", "ImageBuildFailed")
    message = condition(found, "ImagesReady")["message"]
    assert error in message
    assert "last good image stays in use" in message
    [runtime] = found["status"]["runtimes"]
    assert (runtime["phase"], runtime["image"], runtime["failures"]) == ("Failed", good, 1)
    bench.create(run(bench.namespace))
    assert bench.complete("first")["status"]["snapshot"]["image"] == good
    repository.commit({"requirements.txt": "pandas==2.3.0\n"})
    mended = bench.build("b")
    bench.create(run(bench.namespace, "second"))
    assert bench.complete("second")["status"]["snapshot"]["image"] == mended
    assert bench.footprint.count(bench.namespace, "create jobs") == 5


def test_first_build_that_fails_holds_runs_back(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.create(run(bench.namespace))
    bench.kubelet.finish_build(
        bench.build_pod(), {"error": "the commit cannot be fetched"}, container="source"
    )
    found = bench.await_reason("Run", "first", "ImageBuildFailed")
    assert found["status"]["phase"] == "Pending"
    assert "the commit cannot be fetched" in bench.message("Run", "first")
    repository.commit({"lib.py": "x = 1"})
    bench.build()
    bench.complete("first")


def test_project_is_built_by_its_own_certificate_and_goes_with_all_it_made(
    bench: Bench, repository: Repository
) -> None:
    bench.create(built_project(bench.namespace, repository.url))
    bench.build()
    stored = bench.get("Secret", "wine-builder")
    assert set(stored["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    [job] = bench.builds()
    owner = bench.get("Project", "wine")["metadata"]["uid"]
    for child in (stored, job):
        assert [o["uid"] for o in child["metadata"]["ownerReferences"]] == [owner]
    bench.api.delete("Project", bench.namespace, "wine")
    until(lambda: not bench.builds(), "the build's Job is gone")
    gone = bench.api.get
    until(lambda: gone("Secret", bench.namespace, "wine-builder") is None, "the Secret is gone")
