"""What is made of texts."""

import pytest

from labfunctions_operator.runner.notebook_run.text import first_line, strip_ansi


@pytest.mark.parametrize(
    ("source", "want"),
    [("# why\n\n  x = 1\ny", "x = 1"), ("# only", "# only"), ("", ""), ("\n\n", "")],
)
def test_the_first_line_that_does_something(source: str, want: str) -> None:
    assert first_line(source) == want


def test_colours_are_stripped() -> None:
    assert strip_ansi("\x1b[0;31mred\x1b[0m\x1b[K ok") == "red ok"
