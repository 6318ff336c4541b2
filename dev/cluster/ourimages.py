"""The project's own images: what goes into each, and where the chart is told of them."""

from collections.abc import Callable
from typing import Any

import yaml

from dev.cluster import binaries, kind, systemimages
from dev.cluster.binaries import executable
from dev.cluster.cache import cluster_root
from dev.cluster.files import write_if_changed
from dev.cluster.images import Image, ensure_image
from dev.cluster.registry import start_registry
from dev.cluster.versions import HERE

CHECKOUT = HERE.parent.parent
BUILDER_COMPONENTS = ("buildkit", "rootlesskit", "runc")
STAND_IN_COMPONENTS = ("registry", "versitygw")
PYTHON_PROJECT = ("README.md", "labfunctions_operator", "pyproject.toml", "uv.lock")
INPUTS = {
    "operator": (*PYTHON_PROJECT, "images/operator"),
    "courier": (*PYTHON_PROJECT, "images/courier"),
    "builder": ("images/builder",),
    "gitserver": ("dev/gitserver",),
}
# Further programs that the builder's Dockerfile finds in bin/.
BUILDER_PROGRAMS = ("buildctl", "buildkitd", "rootlesskit", "runc")
# What stands in for the public images that the chart names by default.
STAND_INS: dict[str, Callable[[], str]] = {
    "registry": systemimages.registry_image,
    "store": systemimages.store_image,
}
VALUES_FILE = "images.yaml"


def own_images(build_args: dict[str, str]) -> list[Image]:
    """Return the images whose Dockerfiles are in the checkout."""
    found = []
    for name, inputs in INPUTS.items():
        folder = "dev/gitserver" if name == "gitserver" else f"images/{name}"
        programs = BUILDER_PROGRAMS if name == "builder" else ()
        image = Image(
            name=f"labfunctions/{name}",
            dockerfile=CHECKOUT / folder / "Dockerfile",
            context=CHECKOUT,
            inputs=inputs,
            extra_files={f"bin/{program}": executable(program) for program in programs},
            build_args=build_args,
        )
        if image.dockerfile.exists():
            found.append(image)
    return found


def push_all() -> dict[str, str]:
    """Build every image and bring it to the cluster; return references by the chart's names."""
    if kind.is_available():
        binaries.ensure(BUILDER_COMPONENTS)
        # The node pulls public images itself: nothing stands in for them, and no mirror is near.
        references = {_short(image): kind.ensure_image(image) for image in own_images({})}
        _write_values(references, {"builder": {"mirrors": []}})
        return references
    binaries.ensure((*BUILDER_COMPONENTS, *STAND_IN_COMPONENTS))
    start_registry(cluster_root())
    base = {"BASE_IMAGE": systemimages.base_image()}
    references = {_short(image): ensure_image(image) for image in own_images(base)}
    references |= {name: build() for name, build in STAND_INS.items()}
    _write_values(references, {})
    return references


def _write_values(references: dict[str, str], further: dict[str, Any]) -> None:
    of_chart = {name: ref for name, ref in references.items() if name != "gitserver"}
    values = yaml.safe_dump({"images": of_chart, **further})
    write_if_changed(cluster_root() / VALUES_FILE, values)


def _short(image: Image) -> str:
    return image.name.rpartition("/")[2]
