import re

import pytest

from dev.cluster.versions import Component, components

COMPONENTS = list(components().values())
IDS = [component.name for component in COMPONENTS]


@pytest.mark.parametrize("component", COMPONENTS, ids=IDS)
def test_module_requires_the_version_of_the_list(component: Component) -> None:
    required = re.findall(r"^\s*(?:require )?(\S+) v(\S+)", _go_mod(component), re.MULTILINE)

    assert (component.module, component.version) in required


@pytest.mark.parametrize("component", COMPONENTS, ids=IDS)
def test_module_is_pinned_by_checksums(component: Component) -> None:
    sums = (component.folder / "go.sum").read_text()

    assert f"{component.module} v{component.version} h1:" in sums


def test_kubernetes_staging_modules_are_of_its_version() -> None:
    kubernetes = components()["kubernetes"]
    replaced = re.findall(r"^\s*(\S+) => (\S+) v(\S+)$", _go_mod(kubernetes), re.MULTILINE)

    assert len(replaced) == 33
    assert {(a == b, version) for a, b, version in replaced} == {
        (True, "0." + kubernetes.version.removeprefix("1."))
    }


def test_kubernetes_and_kubectl_have_one_version() -> None:
    assert components()["kubernetes"].version == components()["kubectl"].version


def test_stamped_version_is_what_kubectl_compares() -> None:
    flags = components()["kubectl"].ldflags

    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=36" in flags


def test_no_executable_is_built_twice() -> None:
    names = [name for component in COMPONENTS for name in component.executables]

    assert len(names) == len(set(names))


def _go_mod(component: Component) -> str:
    return (component.folder / "go.mod").read_text()
