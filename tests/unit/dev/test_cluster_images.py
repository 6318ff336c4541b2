from pathlib import Path

import pytest

from dev.cluster.images import Image, assembled, passed_settings


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "__pycache__" / "main.pyc").write_text("compiled")
    (tmp_path / "code" / "main.py").write_text("print(1)\n")
    (tmp_path / "notes.txt").write_text("not copied")
    (tmp_path / "tool").write_text("binary")
    return Image(
        name="labfunctions/example",
        dockerfile=tmp_path / "Dockerfile",
        context=tmp_path,
        inputs=("code",),
        extra_files={"bin/tool": tmp_path / "tool"},
    )


def test_context_holds_the_inputs_alone(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABFUNCTIONS_CACHE", str(tmp_path / "cache"))

    with assembled(image) as context:
        files = sorted(str(p.relative_to(context)) for p in context.rglob("*") if p.is_file())

    assert files == ["bin/tool", "code/main.py"]


def test_tag_stays_when_only_other_files_change(image: Image) -> None:
    before = image.tag()
    (image.context / "notes.txt").write_text("changed")
    (image.context / "code" / "__pycache__" / "main.pyc").write_text("compiled anew")

    assert image.tag() == before


@pytest.mark.parametrize("changed", ["Dockerfile", "code/main.py", "tool"])
def test_tag_changes_with_an_input(image: Image, changed: str) -> None:
    before = image.tag()
    (image.context / changed).write_text("other")

    assert image.tag() != before


def test_tag_changes_when_a_file_becomes_executable(image: Image) -> None:
    before = image.tag()
    (image.context / "code" / "main.py").chmod(0o755)

    assert image.tag() != before


def test_settings_that_name_a_path_of_this_machine_stay_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/srv/wheels")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "60")

    settings = passed_settings()

    assert settings["PIP_DEFAULT_TIMEOUT"] == "60"
    assert "PIP_FIND_LINKS" not in settings
