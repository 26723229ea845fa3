"""How the tools say what they found: for people in a terminal, for pipes, and as JSON.

Invariant: what is piped is one finding a line, fields between tabs, every value whole: never
wrapped, cut or coloured, sizes in bytes and times in ISO 8601 (UTC). JSON is one document, sizes
in bytes and times in unix seconds. Only a terminal gets units and tables.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from engine.units import humane_bytes, humane_span

Value = str | int | float | bool | None


class Kind(Enum):
    """How a value is written."""

    TEXT = auto()
    COUNT = auto()
    BYTES = auto()
    TIME = auto()  # unix seconds
    SPAN = auto()  # seconds
    SHARE = auto()  # 0 to 1


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that is said of the whole. `key` is for machines, `title` for people."""

    key: str
    title: str
    value: Value
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a listing."""

    key: str
    title: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of the same kind; `key` names them in JSON."""

    key: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Report:
    """All that a command found."""

    fields: Sequence[Field] = ()
    listings: Sequence[Listing] = field(default=())


def show(report: Report, *, is_json: bool) -> None:
    """Write a report to standard output, as whoever reads it needs it."""
    if is_json:
        click.echo(to_json(report))
    elif sys.stdout.isatty():
        _show_tables(report, Console(highlight=False), time.time())
    else:
        for line in to_lines(report):
            click.echo(line)


def to_json(report: Report) -> str:
    """Write a report as one JSON document."""
    document: dict[str, object] = {each.key: each.value for each in report.fields}
    for listing in report.listings:
        keys = [column.key for column in listing.columns]
        document[listing.key] = [dict(zip(keys, row, strict=True)) for row in listing.rows]
    return json.dumps(document, indent=2)


def to_lines(report: Report) -> list[str]:
    """Write a report as lines: `key` and value; a listing's rows, named where there is more."""
    lines = [f"{each.key}\t{plain(each.value, each.kind)}" for each in report.fields]
    is_alone = not report.fields and len(report.listings) == 1
    for listing in report.listings:
        for row in listing.rows:
            values = [
                plain(value, column.kind)
                for value, column in zip(row, listing.columns, strict=True)
            ]
            lines.append("\t".join(values if is_alone else [listing.key, *values]))
    return lines


def plain(value: Value, kind: Kind) -> str:
    """Write a value whole, on one line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() | float() if kind is Kind.TIME:
            return _moment(value).strftime("%Y-%m-%dT%H:%M:%SZ")
        case float() if kind is Kind.SHARE:
            return f"{value:.4f}"
        case float():
            return f"{value:g}"
        case _:
            # Text from elsewhere must not make two lines or fields of one.
            return "".join(char if char.isprintable() else "?" for char in str(value))


def humane(value: Value, kind: Kind, now: float) -> str:
    """Write a value for people."""
    match value, kind:
        case bool() | str() | None, _:
            return plain(value, kind)
        case float(), Kind.TIME:
            return f"{_moment(value):%Y-%m-%d %H:%M} ({_ago(now - value)})"
        case _, Kind.BYTES:
            return humane_bytes(value)
        case _, Kind.SPAN:
            return humane_span(value)
        case _, Kind.SHARE:
            return f"{value:.1%}"
        case _:
            return f"{value:,}"


def _ago(age_s: float) -> str:
    return f"{humane_span(age_s)} ago" if age_s >= 0 else f"in {humane_span(-age_s)}"


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _show_tables(report: Report, console: Console, now: float) -> None:
    if report.fields:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for each in report.fields:
            grid.add_row(each.title, humane(each.value, each.kind, now))
        console.print(grid)
    is_alone = not report.fields and len(report.listings) == 1
    for listing in report.listings:
        if listing.rows:
            console.print(_table_of(listing, now))
        elif is_alone:
            console.print(f"no {_title_of(listing)}")


def _table_of(listing: Listing, now: float) -> Table:
    table = Table(title=_title_of(listing), title_justify="left", box=SIMPLE_HEAD)
    for column in listing.columns:
        is_number = column.kind in (Kind.COUNT, Kind.BYTES, Kind.SHARE)
        # Folded rather than cut: a digest of which the end is missing is of no use.
        table.add_column(column.title, justify="right" if is_number else "left", overflow="fold")
    for row in listing.rows:
        table.add_row(
            *(_cell(value, column, now) for value, column in zip(row, listing.columns, strict=True))
        )
    return table


def _cell(value: Value, column: Column, now: float) -> str:
    """Write a value where there is little room: of a time only how long ago it was."""
    if column.kind is Kind.TIME and isinstance(value, float):
        return _ago(now - value)
    return humane(value, column.kind, now)


def _title_of(listing: Listing) -> str:
    return listing.key.replace("_", " ")
