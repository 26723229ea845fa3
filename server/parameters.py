"""The query of a request to the operator's API. Pure.

Invariant: nothing is ignored: a parameter that is not known, or is given twice where it stands for
one thing, is an error.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

_MAX_PARAMETERS = 64
_SWITCHES = {"true": True, "1": True, "": True, "false": False, "0": False}


class BadParameter(Exception):
    """A parameter that is missing, repeated, unknown or wrong."""


class Parameters:
    """The query of a request."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    @classmethod
    def parse(cls, query: bytes, known: Sequence[str]) -> "Parameters":
        """Read a query; raises `BadParameter` for what is not `known`."""
        try:
            values = parse_qs(
                query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
            )
        except ValueError as exc:
            raise BadParameter(f"the query cannot be read: {exc}") from exc
        for name in values:
            if name not in known:
                raise BadParameter(f"unknown parameter {name!r}: there are {', '.join(known)}")
        return cls(values)

    def find(self, name: str) -> str | None:
        """Find a parameter that is given once."""
        found = self._values.get(name, [])
        if len(found) > 1:
            raise BadParameter(f"{name} is given more than once")
        return found[0] if found else None

    def get(self, name: str) -> str:
        """Get a parameter that is needed."""
        found = self.find(name)
        if not found:
            raise BadParameter(f"{name} is missing")
        return found

    def list(self, name: str) -> list[str]:
        """List all values of a parameter."""
        return self._values.get(name, [])

    def is_set(self, name: str) -> bool:
        """Whether a switch is given, as `name` or `name=true`."""
        found = self.find(name)
        if found is None:
            return False
        is_on = _SWITCHES.get(found.lower())
        if is_on is None:
            # To take it for "off" would have a dry run that was mistyped carried out.
            raise BadParameter(f"{name} is true or false, not {found!r}")
        return is_on
