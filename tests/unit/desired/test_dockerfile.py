import json
from typing import Any

import pytest
from dockerfile_reader import Instruction, env_values, keywords, read, shell_words
from golden_files import assert_golden
from hypothesis import assume, given
from hypothesis import strategies as st
from objects import make_project, make_runtime

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import (
    APT_PATTERN,
    IMAGE_PATTERN,
    PRINTABLE_PATTERN,
    Project,
    Runtime,
)
from labfunctions_operator.desired.dockerfile import (
    base_image,
    render_dockerfile,
    requirement_files,
    requirements_in,
)
from labfunctions_operator.errors import InvalidSpec

PANDAS = {"requirements.txt": "pandas==2.2\n"}
PYPROJECT = {"pyproject.toml": "[project]\nname = 'demo'\n"}

GOLDEN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "requirements": ({}, PANDAS),
    "requirements-with-packages": (
        {"buildPackages": ["gcc", "libpq-dev=15.1-1", "gcc"], "packages": ["libpq5", "graphviz"]},
        {"requirements.txt": "psycopg2\nPapermill[s3]>=2.6\nipykernel\n"},
    ),
    "nothing-required": ({}, {}),
    "pyproject-with-lock": ({}, {**PYPROJECT, "uv.lock": "version = 1\n"}),
    "pyproject": ({}, PYPROJECT),
    "requirements-of-files": (
        {"requirements": "deps/my requirements.txt"},
        {"deps/my requirements.txt": "-r base.txt\n./wheels/own.whl\n"},
    ),
    "requirements-elsewhere": ({"requirements": "deps/all.txt"}, {"deps/all.txt": "pandas\n"}),
    "gpu": (
        {"template": "gpu", "packages": ["libgomp1"], "user": {"uid": 5000, "gid": 6000}},
        PANDAS,
    ),
    "gpu-without-cudnn": ({"template": "gpu", "gpu": {"cuda": "12.4.0", "cudnn": False}}, PANDAS),
    "base-image": ({"baseImage": "registry.example.com:5000/team/base@sha256:0a"}, PANDAS),
    "python-version": ({"python": "3.12"}, PANDAS),
    "env": (
        {
            "env": {
                "ZONE": "eu",
                "QUOTED": 'say "hello"',
                "BACKSLASH": "C:\\data\\",
                "DOLLAR": "$HOME and ${HOME} cost $5",
                "EMPTY": "",
                "TICKS": "`id` 'x' # no comment",
                "UNICODE": "naïve → ✓",
            }
        },
        PANDAS,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_dockerfile_is_as_reviewed(name: str) -> None:
    fields, files = GOLDEN[name]
    assert_golden(f"{name}.Dockerfile", render_dockerfile(make_runtime(**fields), files))


@pytest.mark.parametrize("name", GOLDEN)
def test_dockerfile_ends_as_the_user_with_the_code_last(name: str) -> None:
    fields, files = GOLDEN[name]
    runtime = make_runtime(**fields)
    user = f"{runtime.user.uid}:{runtime.user.gid}"
    assert read(render_dockerfile(runtime, files))[-3:] == [
        Instruction("WORKDIR", "/app"),
        Instruction("COPY", f"--chown={user} . /app"),
        Instruction("USER", user),
    ]


@pytest.mark.parametrize(
    ("requirements", "added"),
    [
        ("", " papermill ipykernel"),
        ("papermill", " ipykernel"),
        ("Papermill [s3]>=2 ; python_version > '3'\n  IPyKernel==6\n", ""),
        ("# papermill\n-e .\n", " papermill ipykernel"),
        ("papermill-extra\nmy-ipykernel\n", " papermill ipykernel"),
    ],
)
def test_what_the_runner_needs_is_added_where_it_is_missing(requirements: str, added: str) -> None:
    text = render_dockerfile(make_runtime(), {"requirements.txt": requirements})
    [install] = [i.rest for i in read(text) if "pip install" in i.rest]
    assert install.endswith(f"requirements.txt{added}") or install.endswith(f'.txt"{added}')


@pytest.mark.parametrize(
    "line",
    [
        "-r base.txt",
        "--requirement=base.txt",
        "-c constraints.txt",
        "-e .",
        ".",
        "./own.whl",
        "../own",
        "/opt/own.whl",
        "file:own.whl",
        "own @ file:///opt/own.whl",
        "own @ ./own.whl",
        "  -r base.txt",
        "wheels/own-1.0-py3-none-any.whl",
        "own-1.0.tar.gz",
        "--find-links wheels",
        "-f wheels",
    ],
)
def test_requirements_that_name_files_get_the_whole_source(line: str) -> None:
    text = render_dockerfile(make_runtime(), {"requirements.txt": f"pandas\n{line}\n"})
    assert "COPY . /source" in text


@pytest.mark.parametrize(
    "line",
    [
        "pandas==2.2",
        "pandas>=2 ; python_version < '3.12'",
        "own @ https://example.com/own-1.0.whl",
        "git+https://example.com/own.git@v1",
        "--index-url https://example.com/simple",
        "--extra-index-url=https://example.com/simple",
        "--find-links https://example.com/wheels/",
        "https://example.com/own.tar.gz",
        "zope.interface",
        "# see ./docs/x.whl",
    ],
)
def test_requirements_without_files_keep_their_own_layer(line: str) -> None:
    text = render_dockerfile(make_runtime(), {"requirements.txt": f"{line}\n"})
    assert 'COPY ["requirements.txt", "/tmp/requirements.txt"]' in text


def test_only_the_named_requirements_file_is_looked_at() -> None:
    assert requirement_files(make_runtime(requirements="a.txt")) == ("a.txt",)
    assert "requirements.txt" in requirement_files(make_runtime())


def test_a_base_image_of_ones_own_wins_over_the_template() -> None:
    assert base_image(make_runtime(template="gpu", baseImage="own:1", python="3.12")) == "own:1"


@given(data=st.data())
def test_dockerfile_does_not_depend_on_the_order_of_maps_and_lists(data: st.DataObject) -> None:
    env = {f"N{i}": str(i) for i in range(4)}
    packages = ["git", "curl", "gcc"]
    files = {**PANDAS, **PYPROJECT}
    shuffled = make_runtime(
        env=dict(data.draw(st.permutations(sorted(env.items())))),
        packages=data.draw(st.permutations(packages)),
        buildPackages=data.draw(st.permutations(packages)),
    )
    plain = make_runtime(env=env, packages=packages, buildPackages=packages)
    reordered = dict(data.draw(st.permutations(sorted(files.items()))))
    assert render_dockerfile(shuffled, reordered) == render_dockerfile(plain, files)


_PIECES = [
    "\n", "\r", "\\", '"', "'", "`", "$", "${X}", "$(id)", ";", "&&", "|", "#", " ", "\t", "\x0b",
    "\x85", "\u2028", "<<EOF", "EOF", "RUN reboot", "\nRUN reboot", "\\\nRUN reboot", "FROM x",
    "# escape=`", "--mount=type=secret", "--from=x", "..", "/", ".", "-", "a", "=", "*", "?", "[",
    "]", "{", "}", "!", "~", "ü", "\ud7ff", "\x00", "\x7f",
]  # fmt: skip
HOSTILE = st.one_of(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6).map("".join),
    st.text(min_size=1, max_size=30),
)


def pattern(regex: str) -> st.SearchStrategy[str]:
    """What just passes a pattern; fuzz around it is what tells if the pattern is too wide."""
    return st.from_regex(regex, fullmatch=True).filter(lambda text: len(text) < 100)


# Every field of a Runtime that is a string or holds strings: how to set it, and a harmless value.
FIELDS: dict[str, tuple[Any, str, st.SearchStrategy[str]]] = {
    "name": (lambda v: {"name": v}, "default", pattern(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")),
    "baseImage": (lambda v: {"baseImage": v}, "a", pattern(IMAGE_PATTERN)),
    "python": (lambda v: {"python": v}, "3.11", pattern(r"3\.[0-9]{1,2}")),
    "buildPackages": (lambda v: {"buildPackages": [v]}, "a", pattern(APT_PATTERN)),
    "packages": (lambda v: {"packages": [v]}, "a", pattern(APT_PATTERN)),
    "requirements": (lambda v: {"requirements": v}, "a", HOSTILE.map(lambda v: f"a{v}")),
    "cuda": (
        lambda v: {"template": "gpu", "gpu": {"cuda": v}},
        "12.1",
        pattern(r"[0-9]+(\.[0-9]+){1,2}"),
    ),
    "env value": (lambda v: {"env": {"A": v}}, "a", pattern(PRINTABLE_PATTERN)),
    "env name": (lambda v: {"env": {v: "a"}}, "A", pattern(r"[A-Za-z_][A-Za-z0-9_]*")),
}
# A ready-made image and a Dockerfile of one's own render nothing.
NOT_RENDERED = {"image", "dockerfile"}


def parsed(fields: dict[str, Any]) -> Runtime | None:
    """A Runtime as a user would send it, None where parsing refuses it."""
    spec = {"source": {"git": {"url": "https://x/y"}}, "runtimes": [{"name": "a", **fields}]}
    obj = {"metadata": {"name": "demo"}, "spec": spec}
    try:
        return parse(Project, obj).spec.runtimes[0]
    except InvalidSpec:
        return None


def render(runtime: Runtime, requirements: str) -> str:
    path = runtime.requirements or "requirements.txt"
    return render_dockerfile(runtime, {path: requirements})


def test_every_string_field_is_fuzzed() -> None:
    schema = Project.model_json_schema()["$defs"]["Runtime"]["properties"]
    holds_strings = {
        name for name, node in schema.items() if "string" in json.dumps(node) and "enum" not in node
    }
    fuzzed = {field.split(" ")[0] for field in FIELDS} - {"cuda"}
    assert holds_strings - NOT_RENDERED == fuzzed
    assert set(Project.model_json_schema()["$defs"]["Gpu"]["properties"]) == {"cuda", "cudnn"}


@pytest.mark.parametrize("requirements", ["pandas\n", "-r base.txt\n"])
@pytest.mark.parametrize("field", FIELDS)
@given(data=st.data())
def test_no_value_of_a_field_starts_an_instruction_or_a_command(
    field: str, requirements: str, data: st.DataObject
) -> None:
    put, harmless, likely = FIELDS[field]
    value = data.draw(st.one_of(HOSTILE, likely), label=field)
    runtime, benign = parsed(put(value)), parsed(put(harmless))
    assert benign
    if runtime is None:
        return
    text, plain = render(runtime, requirements), render(benign, requirements)
    assert keywords(text) == keywords(plain)
    for got, expected in zip(read(text), read(plain), strict=True):
        if got.keyword == "RUN":
            words, operators = shell_words(got.rest)
            plain_words, plain_operators = shell_words(expected.rest)
            assert operators == plain_operators
            assert len(words) == len(plain_words)
        if got.keyword == "FROM":
            assert len(got.rest.split()) == len(expected.rest.split())


@given(data=st.data())
def test_env_values_reach_the_image_as_they_were_written(data: st.DataObject) -> None:
    values = st.one_of(HOSTILE, pattern(PRINTABLE_PATTERN))
    env = data.draw(st.dictionaries(st.sampled_from(["A", "B_1", "_c"]), values, min_size=1))
    runtime = parsed({"env": env})
    assume(runtime is not None)
    text = render(runtime, "pandas\n")
    own = [i.rest for i in read(text) if i.keyword == "ENV" and not i.rest.startswith("PATH=")]
    read_back: dict[str, str] = {}
    for rest in own:
        read_back |= env_values(rest)
    assert read_back == env


@given(path=HOSTILE.map(lambda text: f"a{text}"))
def test_the_path_of_requirements_stays_one_argument(path: str) -> None:
    runtime = parsed({"requirements": path})
    assume(runtime is not None)
    copied = read(render(runtime, "pandas\n"))
    [copy] = [i.rest for i in copied if i.keyword == "COPY" and i.rest.startswith("[")]
    assert json.loads(copy) == [runtime.requirements, "/tmp/requirements.txt"]
    whole = read(render(runtime, "-r base.txt\n"))
    [run] = [i.rest for i in whole if "pip install" in i.rest]
    assert runtime.requirements in shell_words(run)[0]


@given(text=st.one_of(HOSTILE, st.lists(HOSTILE).map("\n".join)))
def test_the_text_of_requirements_never_reaches_the_dockerfile(text: str) -> None:
    rendered = {render(make_runtime(), text) for text in ("pandas", "papermill", "-r x")}
    shapes = {tuple(keywords(shape)) for shape in rendered}
    assert tuple(keywords(render(make_runtime(), text))) in shapes


def test_an_image_of_each_runtime_of_a_project_is_its_own() -> None:
    project = make_project(runtimes=[{"name": "a"}, {"name": "b", "python": "3.12"}])
    texts = {render_dockerfile(r, {}) for r in project.spec.runtimes}
    assert len(texts) == 2


@pytest.mark.parametrize(
    ("runtime", "files", "installed"),
    [
        ({}, ["requirements.txt", "pyproject.toml", "uv.lock", "gpu.txt"], ["requirements.txt"]),
        ({}, ["pyproject.toml", "uv.lock", "gpu.txt"], ["pyproject.toml", "uv.lock"]),
        ({}, ["gpu.txt"], []),
        ({"requirements": "gpu.txt"}, ["requirements.txt", "gpu.txt"], ["gpu.txt"]),
        ({"dockerfile": "Dockerfile"}, ["requirements.txt", "Dockerfile"], ["Dockerfile"]),
    ],
)
def test_which_files_say_what_an_image_installs(
    runtime: dict[str, str], files: list[str], installed: list[str]
) -> None:
    texts = {path: f"of {path}" for path in files}
    assert requirements_in(make_runtime(**runtime), texts) == {p: texts[p] for p in installed}
