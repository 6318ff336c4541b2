"""The images that the local cluster itself needs, and those that stand in for public ones."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from dev.cluster.binaries import executable
from dev.cluster.cache import cache_root, locked
from dev.cluster.command import run
from dev.cluster.images import Image, buildah, ensure_image, file_digest
from dev.cluster.mounts import unmount_below
from dev.cluster.progress import step
from dev.cluster.registry import HOST, has_image
from dev.cluster.versions import HERE

FOLDER = HERE / "images"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE_NAME = "library/python"
BASE_TAG = "3.11-slim"
BASE_SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "curl", "git", "python3", "python3-pip", "python3-venv")
# What apt leaves behind, and what the slim images leave out as well.
BASE_OMITTED = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)


def pause_image() -> str:
    """Return the reference of the image that holds a pod's namespaces."""
    source = FOLDER / "pause" / "pause.c"
    program = cache_root() / "bin" / f"pause-{file_digest(source).hex()[:16]}" / "pause"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(".new")
        run(["gcc", "-static", "-Os", "-s", "-o", fresh, source])
        fresh.rename(program)
    return ensure_image(_image("pause", "pause", {"pause": program}), also="3.10")


def coredns_image() -> str:
    """Return the reference of CoreDNS's image."""
    return ensure_image(_image("coredns", "coredns", {"coredns": executable("coredns")}))


def registry_image() -> str:
    """Return the reference of the image that stands in for `registry:3`."""
    files = {
        "registry": executable("registry"),
        "config.yml": FOLDER / "registry" / "config.yml",
        "entrypoint.sh": FOLDER / "registry" / "entrypoint.sh",
    }
    return ensure_image(_image("labfunctions/registry", "registry", files, base=True))


def store_image() -> str:
    """Return the reference of the image that stands in for `versity/versitygw`."""
    files = {"versitygw": executable("versitygw")}
    return ensure_image(_image("labfunctions/versitygw", "versitygw", files, base=True))


def base_image() -> str:
    """Return the reference of the image that stands in for `python:3.11-slim`.

    The machine's certificates go in, as a pod behind an intercepting proxy must trust it too.
    """
    digest = hashlib.sha256(repr((BASE_SUITE, BASE_PACKAGES, BASE_OMITTED)).encode())
    digest.update(file_digest(FOLDER / "base" / "Dockerfile") + file_digest(CERTIFICATES))
    tag = f"{BASE_TAG}-{digest.hexdigest()[:16]}"
    if not (has_image(BASE_NAME, tag) and has_image(BASE_NAME, BASE_TAG)):
        with locked("images", doing="building images"):
            _build_base(tag)
    return f"{HOST}/{BASE_NAME}:{tag}"


def _build_base(tag: str) -> None:
    scratch = cache_root() / "scratch"
    # A build that was killed may have left /proc mounted in its tree.
    unmount_below(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(dir=scratch) as folder,
        step(f"building image {BASE_NAME}:{BASE_TAG} from Debian packages (about 70 s)"),
    ):
        rootfs = Path(folder) / "rootfs"
        include = f"--include={','.join(BASE_PACKAGES)}"
        log = cache_root() / "logs" / "debootstrap.log"
        run(["debootstrap", "--variant=minbase", include, BASE_SUITE, rootfs], log=log)
        for name in BASE_OMITTED:
            _empty(rootfs / name)
        shutil.copy(CERTIFICATES, rootfs / CERTIFICATES.relative_to("/"))
        local = f"{HOST}/{BASE_NAME}:{tag}"
        dockerfile = str(FOLDER / "base" / "Dockerfile")
        buildah("build", "--format=docker", "--file", dockerfile, "--tag", local, folder)
        for name in (tag, BASE_TAG):
            buildah("push", "--tls-verify=false", local, f"docker://{HOST}/{BASE_NAME}:{name}")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _image(name: str, folder: str, files: dict[str, Path], *, base: bool = False) -> Image:
    return Image(
        name=name,
        dockerfile=FOLDER / folder / "Dockerfile",
        context=FOLDER / folder,
        extra_files=files,
        build_args={"BASE_IMAGE": base_image()} if base else {},
    )
