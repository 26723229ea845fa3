"""JSON that others wrote, decoded: one error for whatever may be wrong with it."""

from typing import TypeVar

import msgspec

T = TypeVar("T")


class MalformedJSON(ValueError):
    """Bytes that are no JSON of the wanted type."""


def decode_json(data: bytes, wanted: type[T], *, strict: bool = True) -> T:
    """Decode `data` as `wanted`; `strict=False` takes numbers in quotes, too.

    Raises `MalformedJSON`, also for what msgspec has other errors for: strings that are not UTF-8,
    and nesting that is deeper than Python's stack.
    """
    try:
        return msgspec.json.decode(data, type=wanted, strict=strict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedJSON(str(exc)) from exc
