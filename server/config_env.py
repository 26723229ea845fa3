"""`REGISTRY_*` variables, by distribution's rules.

Rules (its configuration/parser.go): `_` separates levels; names are upper case; values are YAML;
a list's element is named by its index, and the index after the last appends; keys of free maps are
lower-cased; variables apply in lexical order, so that `REGISTRY_STORAGE` comes before
`REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY`. What nobody knows is warned of and ignored: Kubernetes
sets `REGISTRY_PORT` and the like for a service named `registry`.

One difference: a variable replaces a free map's key whatever that key's case. Distribution would
keep both, and send both headers.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

from server.config_schema import ROOT, Free, Leaf, Listing, Schema, Section, Table
from server.config_tree import InvalidValue, Node, Path, Problem, Report

PREFIX = "REGISTRY_"
CONFIG_PATH_VARIABLE = "REGISTRY_CONFIGURATION_PATH"
# The file's version says how to read the file; it is not a setting.
_NOT_SETTINGS = frozenset({CONFIG_PATH_VARIABLE, "REGISTRY_VERSION"})
_INDEX = re.compile(r"\d{1,9}", re.ASCII)

_Read = Callable[[], Node]


class _Unrecognised(Exception):
    """The variable's name leads nowhere."""


def apply_environment(
    tree: Node, environ: Mapping[str, str], parse: Callable[[str], Node], report: Report
) -> Node:
    """Give `tree` with the variables applied; `parse` reads a value, or raises `InvalidValue`."""
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        names = variable.removeprefix(PREFIX).split("_")
        read = partial(parse, environ[variable])
        try:
            tree = _override(tree, names, read, report, variable)
        except _Unrecognised:
            report.warnings.append(f"{variable}: names no known setting, ignored")
        except InvalidValue as exc:
            # Never the value itself: it may be a password.
            found = exc.found or "something else"
            report.problems.append(Problem(variable, "", found, exc.expected))
    return tree


def apply_flag(tree: Node, key_path: str, value: Node, report: Report, flag: str) -> Node:
    """Give `tree` with `value` at `key_path`, whose keys are all known."""
    try:
        return _override(tree, key_path.upper().split("."), lambda: value, report, flag)
    except _Unrecognised:
        return tree  # a section is no mapping: the check will say so


def _override(tree: Node, names: list[str], read: _Read, report: Report, origin: str) -> Node:
    """Give `tree` with what `read` gives where `names` lead; `origin` is what set it."""
    after, path = _put(ROOT, tree, names, read)
    report.origins = {
        known: source for known, source in report.origins.items() if known[: len(path)] != path
    }
    report.origins[path[: _count_known(tree, path) + 1]] = origin
    report.origins[path] = origin
    return after


def _count_known(node: Node, path: Path) -> int:
    """Count the steps of `path` that were there before."""
    for count, key in enumerate(path):
        if not isinstance(node, dict) or key not in node:
            return count
        node = node[key]
    return len(path)


def _put(schema: Schema, node: Node, names: list[str], read: _Read) -> tuple[Node, Path]:
    """Give `node` with what `read` gives put where `names` lead, and the keys on the way.

    The tree is not changed but made anew along the way. Nothing is read for an unknown name.
    """
    if not names:
        return read(), ()
    match schema:
        case Section():
            key = schema.find_key(names[0])
            if key is None:
                raise _Unrecognised
            return _put_key(key, schema.keys[key], _expand(schema, node), names, read)
        case Table():
            return _put_key(_free_key(node, names[0]), schema.element, node, names, read)
        case Listing():
            return _put_element(schema.element, node, names, read)
        case Free():
            if isinstance(node, list):
                return _put_element(schema, node, names, read)
            return _put_key(_free_key(node, names[0]), schema, node, names, read)
        case Leaf():
            raise _Unrecognised


def _put_key(
    key: str, schema: Schema, node: Node, names: list[str], read: _Read
) -> tuple[Node, Path]:
    if node is not None and not isinstance(node, dict):
        raise _Unrecognised  # there is a single value or a list, which the check may object to
    members = node or {}
    child, path = _put(schema, members.get(key), names[1:], read)
    return {**members, key: child}, (key, *path)


def _put_element(schema: Schema, node: Node, names: list[str], read: _Read) -> tuple[Node, Path]:
    elements = node if isinstance(node, list) else [] if node is None else [node]
    index = int(names[0]) if _INDEX.fullmatch(names[0]) else -1
    if not 0 <= index <= len(elements):
        expected = f"the index of an element, 0 to {len(elements)}"
        raise InvalidValue(expected, f"{names[0]!r} for a list of {len(elements)}")
    before = elements[index] if index < len(elements) else None
    child, path = _put(schema, before, names[1:], read)
    return [*elements[:index], child, *elements[index + 1 :]], (str(index), *path)


def _free_key(node: Node, name: str) -> str:
    keys = node if isinstance(node, dict) else {}
    return next((key for key in keys if key.upper() == name), name.lower())


def _expand(schema: Section, node: Node) -> Node:
    """Write out `storage: inmemory`, so that more can be put beside it."""
    return {node: {}} if schema.has_shorthand and isinstance(node, str) else node
