"""Compares a tree with the schema: unknown keys, wrong shapes, keys that are not used.

Invariant: after it, everything in the tree that is used has the schema's shape, or a problem says
so. Unused parts are checked for unknown keys, too: a typing error there is one everywhere.
"""

import difflib
from typing import NamedTuple

from server.config_schema import Free, Leaf, Listing, Schema, Section, Table
from server.config_tree import Node, Path, Report, describe

_EXPECTED_SHAPES = {Leaf: "a single value", Listing: "a list"}


class _Member(NamedTuple):
    """Something inside a node; `schema` is None where the schema has no such key."""

    key: str
    node: Node
    schema: Schema | None


def check(
    schema: Schema, node: Node, report: Report, path: Path = (), *, is_quiet: bool = False
) -> None:
    """Report all that is wrong with `node`, and warn of keys that are not used.

    `is_quiet`: no such warnings, as what is around `node` has been warned of.
    """
    if node is None:
        return
    if not schema.is_used and not is_quiet:
        report.warn(path, "known to distribution, but not used here")
    members = _find_members(schema, node)
    if members is None:
        report.add_problem(path, describe(node), _EXPECTED_SHAPES.get(type(schema), "a mapping"))
        return
    is_quiet = is_quiet or not schema.is_used
    for member in members:
        inner = (*path, member.key)
        if member.schema is None:
            report.add_problem(inner, "an unknown key", _suggest(member.key, schema))
        else:
            check(member.schema, member.node, report, inner, is_quiet=is_quiet)


def _find_members(schema: Schema, node: Node) -> list[_Member] | None:
    """List what is inside `node`; None where it has not the schema's shape."""
    match schema, node:
        case (Free(), _) | (Leaf() | Listing(element=Leaf()), str()):
            return []
        case Section(), dict():
            return [_Member(key, child, schema.keys.get(key)) for key, child in node.items()]
        case Section(has_shorthand=True), str():
            return [_Member(node, None, schema.keys.get(node))]
        case Table(), dict():
            return [_Member(key, child, schema.element) for key, child in node.items()]
        case Listing(), list():
            return [_Member(str(at), child, schema.element) for at, child in enumerate(node)]
        case _:
            return None


def _suggest(key: str, schema: Schema) -> str:
    known = list(schema.keys) if isinstance(schema, Section) else []
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"{close[0]}, perhaps" if close else f"one of {', '.join(known)}"
