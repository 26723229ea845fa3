"""Values on the command line: moments, sizes, percentages. What is wrong is a usage error.

Each function reads a text, for `click.option(type=…)`, and raises `click.BadParameter`.
"""

import re
import time
from datetime import UTC, datetime

import click

from server.config_tree import InvalidValue
from server.config_values import parse_duration_s, parse_fraction, parse_pin, parse_size_bytes

_DAYS = re.compile(r"(\d+(?:\.\d+)?)d", re.ASCII)
_DAY_S = 86_400.0


def moment(text: str) -> float:
    """Read a time (`2026-03-01`, `2026-03-01T12:00Z`) or a duration (`7d`, `36h`) before now.

    The value is unix seconds. A time without a zone is UTC.
    """
    try:
        return time.time() - parse_span_s(text)
    except InvalidValue:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"{text!r} is no time such as 2026-03-01, and no duration such as 7d or 36h"
        ) from exc
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def size(text: str) -> int:
    """Read a size such as `50MiB`, as bytes."""
    try:
        return parse_size_bytes(text)
    except InvalidValue as exc:
        raise click.BadParameter(f"{text!r} is not {exc.expected}") from exc


def percentage(text: str) -> float:
    """Read `5%` or `5` as a fraction."""
    try:
        return parse_fraction(text if text.endswith("%") else f"{text}%")
    except InvalidValue as exc:
        raise click.BadParameter(f"{text!r} is not {exc.expected}") from exc


def pin_glob(text: str) -> str:
    """Check a glob as it stands under `eviction.pins`."""
    try:
        return parse_pin(text)
    except InvalidValue as exc:
        raise click.BadParameter(f"{text!r} is not {exc.expected}") from exc


def parse_span_s(text: str) -> float:
    """Read a duration in Go's notation, or in days: `7d`. Raises `InvalidValue`."""
    days = _DAYS.fullmatch(text)
    if days:
        return float(days[1]) * _DAY_S
    if text.isdigit():
        # Nanoseconds in a configuration; here nobody means that.
        raise InvalidValue("a duration with a unit, such as 7d or 36h")
    return parse_duration_s(text)
