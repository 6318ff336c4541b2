"""Dockerfiles for generated runtimes: deterministic, every value escaped, code last.

The order of layers is that of how seldom things change: system packages, requirements, code;
a commit that changes code alone reuses all but the last layer.
"""

import re
from collections.abc import Mapping

from labfunctions_operator.api.project import Runtime

# What the runner needs inside the image.
RUNNER_PACKAGES = ("papermill", "ipykernel")

_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_LOCAL = re.compile(
    r"^\s*(-r|--requirement|-c|--constraint|-e|--editable|\.|/|file:"
    r"|(-f|--find-links)[=\s]*(?![=\s]|https?:)"
    r"|[^#:\s]+\.(whl|zip|tgz|tar\.gz|tar\.bz2)\b)"
)
_LOCAL_URL = re.compile(r"@\s*(file:|\.)")


def base_image(runtime: Runtime) -> str:
    """Return the image that a generated Dockerfile starts from."""
    if runtime.base_image:
        return runtime.base_image
    if runtime.template == "gpu":
        cudnn = "-cudnn" if runtime.gpu.cudnn else ""
        return f"nvidia/cuda:{runtime.gpu.cuda}{cudnn}-runtime-ubuntu24.04"
    return f"python:{runtime.python}-slim"


def requirement_files(runtime: Runtime) -> tuple[str, ...]:
    """Return the paths, in the source, that may say what to install."""
    if runtime.requirements:
        return (runtime.requirements,)
    return ("requirements.txt", "pyproject.toml", "uv.lock")


def requirements_in(runtime: Runtime, files: Mapping[str, str]) -> dict[str, str]:
    """Return those files, with their texts, that a runtime's image installs from."""
    listed = runtime.dockerfile or runtime.requirements or "requirements.txt"
    paths = (listed,) if listed in files else requirement_files(runtime)
    return {path: files[path] for path in paths if path in files}


def render_dockerfile(runtime: Runtime, files: Mapping[str, str]) -> str:
    """Render the Dockerfile of a generated runtime.

    Args:
        runtime: Neither ready made nor with a Dockerfile of its own.
        files: Text of those `requirement_files` that the source has.
    """
    base = base_image(runtime)
    python = ["python3", "python3-venv"] if runtime.template == "gpu" else []
    user, group = runtime.user.uid, runtime.user.gid
    lines = [
        f"FROM {base} AS requirements",
        *_apt([*python, *runtime.build_packages]),
        "RUN python3 -m venv /opt/venv",
        'ENV PATH="/opt/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK="1" PIP_NO_CACHE_DIR="1"',
        *_install(runtime, files),
        "",
        f"FROM {base}",
        *_apt([*python, *runtime.packages]),
        f"RUN groupadd --non-unique --gid {group} labfunctions"
        f" && useradd --non-unique --uid {user} --gid {group} --create-home labfunctions",
        "COPY --from=requirements /opt/venv /opt/venv",
        'ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED="1"',
        *(f"ENV {name}={_quoted(value)}" for name, value in sorted(runtime.env.items())),
        "WORKDIR /app",
        f"COPY --chown={user}:{group} . /app",
        f"USER {user}:{group}",
    ]
    return "\n".join(lines) + "\n"


def _apt(packages: list[str]) -> list[str]:
    if not packages:
        return []
    return [
        "RUN apt-get update && apt-get install --yes --no-install-recommends "
        + " ".join(sorted(set(packages)))
        + " && rm -rf /var/lib/apt/lists/*"
    ]


def _install(runtime: Runtime, files: Mapping[str, str]) -> list[str]:
    """Install what the project requires and, in the same resolution, what the runner needs."""
    path = runtime.requirements or "requirements.txt"
    if path in files:
        missing = _missing(files[path])
        if _refers_to_files(files[path]):
            return [
                "COPY . /source",
                f"RUN cd /source && pip install -r {_quoted(path)}{missing}",
            ]
        return [
            f'COPY ["{path}", "/tmp/requirements.txt"]',
            f"RUN pip install -r /tmp/requirements.txt{missing}",
        ]
    if "pyproject.toml" in files:
        return _install_pyproject(files)
    return [f"RUN pip install{_missing('')}"]


def _install_pyproject(files: Mapping[str, str]) -> list[str]:
    copy = ["pyproject.toml", *(["uv.lock"] if "uv.lock" in files else [])]
    uv = "RUN cd /tmp/project && python3 -m venv /tmp/uv && /tmp/uv/bin/pip install uv"
    if "uv.lock" in files:
        install = (
            " && UV_PROJECT_ENVIRONMENT=/opt/venv /tmp/uv/bin/uv sync"
            " --frozen --no-dev --no-install-project --inexact"
            f" && /tmp/uv/bin/uv pip install --python /opt/venv/bin/python{_missing('')}"
        )
    else:
        install = (
            " && /tmp/uv/bin/uv pip install --python /opt/venv/bin/python"
            f" -r pyproject.toml{_missing('')}"
        )
    return [f"COPY {' '.join(copy)} /tmp/project/", uv + install]


def _missing(requirements: str) -> str:
    listed = {
        m[1].lower().replace("_", "-").replace(".", "-")
        for line in requirements.splitlines()
        if (m := _NAME.match(line))
    }
    return "".join(f" {p}" for p in RUNNER_PACKAGES if p not in listed)


def _refers_to_files(requirements: str) -> bool:
    """Whether the requirements name other files, so that they need the whole source."""
    return any(_LOCAL.match(line) or _LOCAL_URL.search(line) for line in requirements.splitlines())


def _quoted(value: str) -> str:
    """Quote a value for a Dockerfile instruction; control characters are refused before."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
