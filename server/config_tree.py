"""A configuration as a tree of texts, and what is found wrong with it.

Invariant: scalars stay the texts that were written (`0123` is a fine password), so what a value
means is decided by the key that it stands at, never by YAML's guess of its type.
Problems are collected, not raised one by one: the operator sees all of them at once.
Must not know: YAML, the environment, which keys exist.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

# None is YAML's null: the same as an absent key, but for sections whose name alone says something.
Node: TypeAlias = "str | list[Node] | dict[str, Node] | None"
Path = tuple[str, ...]

_T = TypeVar("_T")
_SHOWN_CHARS = 80


class InvalidValue(ValueError):
    """A text that does not mean what its key needs.

    `found` replaces the text in the message where that may hold a secret.
    """

    def __init__(self, expected: str, found: str | None = None) -> None:
        super().__init__(f"expected {expected}")
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `source`: a file, a variable, a flag; an empty `key_path`: all of it."""

    source: str
    key_path: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.source}: {self.key_path}" if self.key_path else self.source
        return f"{where}: found {self.found}, expected {self.expected}"


class ConfigError(Exception):
    """The configuration cannot be used. As text: one line for each problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def mask(text: str) -> str:
    """Hide what may be credentials in an URL: all before the last `@`."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)


def show(text: str) -> str:
    """Quote `text` for a message: on one line, bounded, masked."""
    masked = mask(text)
    return repr(masked if len(masked) <= _SHOWN_CHARS else masked[:_SHOWN_CHARS] + "…")


def describe(node: "str | list[Node] | dict[str, Node]") -> str:
    """Say what `node` is, for a message about its shape."""
    match node:
        case str():
            return "a single value"
        case list():
            return "a list"
        case dict():
            return "a mapping"


def join(path: Path) -> str:
    """Write a path as people do: `http.headers`, `eviction.pins[0]`."""
    text = ""
    for step in path:
        shown = mask(step) if step.isprintable() else repr(mask(step))
        text += f"[{step}]" if step.isdecimal() else f".{shown}"
    return text.removeprefix(".")


@dataclass(slots=True)
class Report:
    """Collects problems and warnings, and knows which source each key came from."""

    source: str  # where keys without an origin of their own come from
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_problem(self, path: Path, found: str, expected: str) -> None:
        """Note that the key at `path` is wrong."""
        self.problems.append(Problem(self.find_source(path), join(path), found, expected))

    def warn(self, path: Path, message: str) -> None:
        """Note, once, something that the operator should know of the key at `path`."""
        where = f"{self.find_source(path)}: {join(path)}" if path else self.find_source(path)
        line = f"{where}: {message}"
        if line not in self.warnings:
            self.warnings.append(line)

    def find_source(self, path: Path) -> str:
        """Name what set the key at `path`: the last one to set it or anything around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.source

    def raise_problems(self) -> None:
        """Raise `ConfigError` if there are any problems."""
        if self.problems:
            raise ConfigError(tuple(self.problems))


class Reader:
    """One mapping of the tree. What has the wrong shape reads as absent: the check reports it."""

    def __init__(self, node: Node, path: Path, report: Report) -> None:
        # `storage: inmemory` is short for `storage: {inmemory: {}}`.
        members: Node = {node: None} if isinstance(node, str) else node
        self._members: Mapping[str, Node] = members if isinstance(members, dict) else {}
        self.path = path
        self.report = report

    def __contains__(self, key: str) -> bool:
        return key in self._members

    @property
    def keys(self) -> list[str]:
        """The keys that are there, in the order written."""
        return list(self._members)

    def section(self, key: str) -> "Reader":
        """Read the mapping at `key`; an empty one where there is none."""
        return Reader(self._members.get(key), (*self.path, key), self.report)

    def sections(self, key: str) -> Iterator[tuple[str, "Reader"]]:
        """Iterate over a mapping of mappings."""
        table = self.section(key)
        return ((name, table.section(name)) for name in table.keys)

    def elements(self, key: str) -> "list[Reader]":
        """Read a list of mappings."""
        node = self._members.get(key)
        nodes = node if isinstance(node, list) else []
        path = (*self.path, key)
        return [Reader(one, (*path, str(at)), self.report) for at, one in enumerate(nodes)]

    def node(self, key: str) -> Node:
        """Give what is at `key`, whatever its shape."""
        return self._members.get(key)

    def text(self, key: str) -> str | None:
        """Read a single value; an empty one is as good as none, as it is in distribution."""
        node = self._members.get(key)
        return node if isinstance(node, str) and node else None

    def texts(self, key: str) -> list[str]:
        """Read a list of values; a single one is a list of one."""
        node = self._members.get(key)
        values = node if isinstance(node, list) else [node]
        return [value for value in values if isinstance(value, str) and value]

    def value(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Read a single value by `parse`; `default` where it is absent or wrong (and reported)."""
        text = self.text(key)
        value = None if text is None else self._parse(key, text, parse)
        return default if value is None else value

    def values(self, key: str, parse: Callable[[str], _T]) -> list[_T]:
        """Read a list of values by `parse`, leaving out the wrong ones (reported)."""
        parsed = (self._parse(key, text, parse) for text in self.texts(key))
        return [value for value in parsed if value is not None]

    def add_problem(self, key: str, found: str, expected: str) -> None:
        """Note that `key` is wrong."""
        self.report.add_problem((*self.path, key), found, expected)

    def warn(self, key: str, message: str) -> None:
        """Note, once, something that the operator should know of `key`."""
        self.report.warn((*self.path, key), message)

    def _parse(self, key: str, text: str, parse: Callable[[str], _T]) -> _T | None:
        try:
            return parse(text)
        except InvalidValue as exc:
            self.add_problem(key, exc.found or show(text), exc.expected)
            return None
