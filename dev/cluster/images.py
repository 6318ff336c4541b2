"""Building images and pushing them to the node's registry, each content once."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dev.cluster.cache import cache_root, locked
from dev.cluster.command import run
from dev.cluster.progress import step
from dev.cluster.registry import HOST, has_image

# Settings of package clients that a build may need; paths of this machine mean nothing there.
PASSED_PREFIXES = ("PIP_", "UV_")


@dataclass(frozen=True)
class Image:
    """What an image is made of.

    Attributes:
        name: Its repository, without the registry's host.
        dockerfile: The Dockerfile.
        context: The folder that `inputs` are relative to.
        inputs: The files and folders that the Dockerfile may copy.
        extra_files: Further files, by the path at which the Dockerfile finds them.
        build_args: The Dockerfile's arguments.
    """

    name: str
    dockerfile: Path
    context: Path
    inputs: tuple[str, ...] = ()
    extra_files: Mapping[str, Path] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file of the build context with its place in there, sorted."""
        found = dict(self.extra_files)
        for entry in self.inputs:
            path = self.context / entry
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    found[str(file.relative_to(self.context))] = file
        yield from sorted(found.items())

    def tag(self) -> str:
        """Return a tag that names the content: the same inputs, the same tag."""
        digest = hashlib.sha256(self.dockerfile.read_bytes())
        digest.update(repr(sorted(self.build_args.items())).encode())
        for place, file in self.files():
            mode = file.stat().st_mode & 0o111
            digest.update(f"\0{place}\0{mode}\0".encode())
            digest.update(file_digest(file))
        return digest.hexdigest()[:16]


def file_digest(path: Path) -> bytes:
    """Return a digest of a file's content, large files included."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def ensure_image(image: Image, *, also: str | None = None) -> str:
    """Build and push an image unless the registry holds it; return its reference.

    Args:
        image: What to build.
        also: A further tag, for those who know the image by a fixed name.
    """
    tag = image.tag()
    names = [tag, *([also] if also else [])]
    if not _all_present(image.name, names):
        with locked("images", doing="building images"):
            if not _all_present(image.name, names):
                with step(f"building image {image.name}:{tag}"):
                    _build(image, tag, names)
    return f"{HOST}/{image.name}:{tag}"


def _all_present(repository: str, tags: list[str]) -> bool:
    return all(has_image(repository, tag) for tag in tags)


def _build(image: Image, tag: str, names: list[str]) -> None:
    local = f"{HOST}/{image.name}:{tag}"
    with assembled(image) as context:
        argv = ["build", "--isolation=chroot", "--layers", "--tls-verify=false"]
        # The format that keeps Docker's fields, such as SHELL, and every client pulls.
        argv += ["--format=docker", "--file", str(image.dockerfile), "--tag", local]
        for key, value in {**passed_settings(), **image.build_args}.items():
            argv += ["--build-arg", f"{key}={value}"]
        log = cache_root() / "logs" / f"image-{image.name.replace('/', '-')}.log"
        buildah(*argv, str(context), log=log)
    for name in names:
        buildah("push", "--tls-verify=false", local, f"docker://{HOST}/{image.name}:{name}")


@contextmanager
def assembled(image: Image) -> Iterator[Path]:
    """Yield a folder with exactly the files that count for the image's tag."""
    scratch = cache_root() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for place, file in image.files():
            target = Path(folder, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        yield Path(folder)


def buildah(*args: str, log: Path | None = None) -> str:
    """Run buildah with its storage in the cache."""
    root = cache_root()
    storage = [f"--root={root / 'buildah'}", f"--runroot={root / 'buildah-run'}"]
    return run(["buildah", *storage, *args], log=log)


def passed_settings() -> dict[str, str]:
    """Return the settings of package clients in our environment that hold in a build too."""
    return {
        key: value
        for key, value in os.environ.items()
        if key.startswith(PASSED_PREFIXES) and not value.startswith("/")
    }
