"""The configuration: distribution's `config.yml`, `REGISTRY_*` variables and flags.

Invariant: YAML is read and written here and nowhere else; flags beat the environment, which beats
the file. What is wrong is all said at once, each problem with its source and key path.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from server.config_build import build
from server.config_check import check
from server.config_env import CONFIG_PATH_VARIABLE, apply_environment, apply_flag
from server.config_schema import ROOT
from server.config_tree import ConfigError, InvalidValue, Node, Problem, Report
from server.settings import ServerSettings

__all__ = ["ConfigError", "load", "to_yaml"]

_VERSION = "0.1"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
# Far more than any configuration has; stops aliases that multiply ("billion laughs").
_MAX_NODES = 100_000


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    upstream: str | None = None,
    data: Path | None = None,
    listen: str | None = None,
) -> ServerSettings:
    """Read the configuration from `path`, or from where REGISTRY_CONFIGURATION_PATH says.

    Without either there is no file, and the defaults make a mirror of Docker Hub. Reads the files
    that the configuration names for passwords, too. Raises `ConfigError`.
    """
    file = path or (environ.get(CONFIG_PATH_VARIABLE) or None)
    report = Report(str(file) if file else "default configuration")
    tree = _read_file(Path(file), report) if file else {}
    tree = apply_environment(tree, environ, _parse_value, report)
    tree = _apply_flags(tree, report, upstream=upstream, data=data, listen=listen)
    check(ROOT, tree, report)
    settings = build(tree, environ, report, has_file=file is not None)
    report.raise_problems()
    return settings


def to_yaml(tree: object) -> str:
    """Write plain values as YAML, in the order given, a value never wrapped over lines."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=float("inf"))


def _apply_flags(
    tree: Node, report: Report, *, upstream: str | None, data: Path | None, listen: str | None
) -> Node:
    if upstream is not None:
        tree = apply_flag(tree, "proxy.remoteurl", upstream, report, "--upstream")
    if listen is not None:
        tree = apply_flag(tree, "http.addr", listen, report, "--listen")
        tree = apply_flag(tree, "http.net", None, report, "--listen")
    if data is not None:
        directory = os.fspath(data.absolute())
        tree = apply_flag(tree, "storage.filesystem.rootdirectory", directory, report, "--data")
        tree = _drop_inmemory(tree)
    return tree


def _drop_inmemory(tree: Node) -> Node:
    """Let a data directory that a flag asks for take the place of a temporary one."""
    storage = tree.get("storage") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(storage, dict):
        return tree
    kept = {key: node for key, node in storage.items() if key != "inmemory"}
    return {**tree, "storage": kept}


def _read_file(path: Path, report: Report) -> Node:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        reason = exc.strerror or "an unreadable file"
        raise _refuse(path, reason, "a readable configuration file") from exc
    except UnicodeDecodeError as exc:
        raise _refuse(path, "bytes that are not UTF-8", "a YAML file") from exc
    try:
        tree, repeated = _parse(text)
    except InvalidValue as exc:
        raise _refuse(path, exc.found or "something else", exc.expected) from exc
    version = tree.get("version") if isinstance(tree, dict) else None
    if version != _VERSION:
        found = "no version" if version is None else f"version {version!r}"
        raise _refuse(path, found, f"a mapping with `version: {_VERSION}`")
    for place in repeated:
        report.warn((), f"{place} stands there twice, the last one counts")
    return tree


def _refuse(path: Path, found: str, expected: str) -> ConfigError:
    return ConfigError((Problem(os.fspath(path), "", found, expected),))


def _parse_value(text: str) -> Node:
    """Read a variable's value; it is not repeated in the error, being a password perhaps."""
    try:
        return _parse(text)[0]
    except InvalidValue as exc:
        expected = "YAML (quote a value that holds YAML's own characters: '\"…\"')"
        raise InvalidValue(expected, "a value that is not YAML") from exc


def _parse(text: str) -> tuple[Node, list[str]]:
    """Read one YAML document without resolving scalars, and list the keys that are repeated."""
    converter = _Converter()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = None if root is None else converter.convert(root)
    except yaml.MarkedYAMLError as exc:
        # What is quoted in it is text of the document: an alias `*…`, which may be a password.
        problem = re.sub(r"'[^'<>]{2,}'", "'…'", exc.problem or "text that is not YAML")
        raise InvalidValue("a YAML document", f"{problem}{_place(exc.problem_mark)}") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise InvalidValue("a YAML document", "text that is not YAML") from exc
    return tree, converter.repeated


def _place(mark: yaml.Mark | None) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""


class _Converter:
    """Makes a tree of YAML's nodes: aliases become copies, `<<` is merged, the last key wins."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._node_count = 0

    def convert(self, node: yaml.Node) -> Node:
        """Give `node` as texts, lists and mappings. Raises `InvalidValue`."""
        self._node_count += 1
        if self._node_count > _MAX_NODES:
            raise InvalidValue("a YAML document", "more than a configuration can hold")
        if isinstance(node, yaml.MappingNode):
            return self._convert_mapping(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(element) for element in node.value]
        return None if node.tag == _NULL else str(node.value)

    def _convert_mapping(self, pairs: list[tuple[yaml.Node, yaml.Node]]) -> Node:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, value in pairs:
            if not isinstance(key, yaml.ScalarNode):
                raise InvalidValue("a YAML document whose keys are texts", "a key that is not")
            if key.tag == _MERGE:
                merged |= self._merge(value)
                continue
            if key.value in own:
                self.repeated.append(f"`{key.value}`{_place(key.start_mark)}")
            own[str(key.value)] = self.convert(value)
        return merged | own

    def _merge(self, value: yaml.Node) -> dict[str, Node]:
        """Read what `<<` stands before: a mapping or several, of which the first wins."""
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        merged: dict[str, Node] = {}
        for source in sources:
            members = self.convert(source)
            if not isinstance(members, dict):
                raise InvalidValue("a mapping behind `<<`", "something else")
            merged = members | merged
        return merged
