"""Reads Dockerfiles as BuildKit does: logical lines, instructions, quoted values."""

import re
import shlex
from dataclasses import dataclass

_HEREDOC = re.compile(r"^\d*<<-?[^<]*$")
_ENV = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"(?: |$)')


@dataclass(frozen=True)
class Instruction:
    keyword: str
    rest: str


def read(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; the keyword of each is what decides what it does."""
    instructions = []
    lines = iter(text.split("\n"))
    for raw in lines:
        line = raw.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.endswith("\\"):
            line = line[:-1] + next(lines, "")
        keyword, _, rest = line.strip().partition(" ")
        if keyword.upper() in {"RUN", "COPY", "ADD"}:
            unquoted = re.sub(r'"[^"]*"', '""', rest)
            assert not any(_HEREDOC.match(word) for word in unquoted.split()), f"a heredoc: {line}"
        instructions.append(Instruction(keyword.upper(), rest))
    return instructions


def keywords(text: str) -> list[str]:
    return [instruction.keyword for instruction in read(text)]


def env_values(rest: str) -> dict[str, str]:
    """The assignments of one ENV instruction, with quotes and escapes undone."""
    values, position = {}, 0
    while position < len(rest):
        match = _ENV.match(rest, position)
        assert match, f"not a quoted assignment: {rest[position:]}"
        values[match[1]] = _unquoted(match[2])
        position = match.end()
    return values


def _unquoted(text: str) -> str:
    out, characters = "", iter(text)
    for c in characters:
        if c == "\\":
            following = next(characters)
            out += following if following in '"\\$' else c + following
            continue
        assert c != "$", f"a variable would be expanded in {text}"
        out += c
    return out


def shell_words(command: str) -> tuple[list[str], list[str]]:
    """The words and the operators of a RUN instruction's command."""
    # Without posix quotes stay, which tells an operator from a quoted one.
    lexer = shlex.shlex(command, posix=False, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    tokens = list(lexer)
    operators = [t for t in tokens if set(t) <= set("();<>|&")]
    return [t.strip('"') for t in tokens if t not in operators], operators
