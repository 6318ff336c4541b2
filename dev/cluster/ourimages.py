"""The project's own images: what goes into each, and where the chart is told of them."""

from collections.abc import Callable
from pathlib import Path

import yaml

from dev.cluster import binaries, systemimages
from dev.cluster.binaries import executable
from dev.cluster.cache import cluster_root
from dev.cluster.files import write_if_changed
from dev.cluster.images import Image, ensure_image
from dev.cluster.versions import HERE

CHECKOUT = HERE.parent.parent
COMPONENTS = ("buildkit", "rootlesskit", "runc", "registry", "versitygw")
PYTHON_PROJECT = ("README.md", "labfunctions_operator", "pyproject.toml", "uv.lock")
INPUTS = {
    "operator": (*PYTHON_PROJECT, "images/operator"),
    "courier": (*PYTHON_PROJECT, "images/courier"),
    "builder": ("images/builder",),
    "gitserver": ("dev/gitserver", "examples"),
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
    """Build and push every image; return references by the names that the chart uses."""
    binaries.ensure(COMPONENTS)
    references = {
        image.name.rpartition("/")[2]: ensure_image(image)
        for image in own_images({"BASE_IMAGE": systemimages.base_image()})
    }
    references |= {name: build() for name, build in STAND_INS.items()}
    write_values(references)
    return references


def write_values(references: dict[str, str]) -> Path:
    """Write the references as values of the chart; return the file's path."""
    path = cluster_root() / VALUES_FILE
    of_chart = {name: ref for name, ref in references.items() if name != "gitserver"}
    write_if_changed(path, yaml.safe_dump({"images": of_chart}))
    return path
