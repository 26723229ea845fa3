"""The header of the PROXY protocol, byte by byte. Pure.

Invariant: how the bytes were cut into pieces makes no difference; what is no header is refused at
the first byte that tells, and nothing past `MAX_BYTES` is ever waited for.
Where a header names no client (the proxy's own health checks, families other than IP), the address
of the connection counts, as the specification has it. Extensions (TLV) are skipped.
Source: "The PROXY protocol, versions 1 & 2" (HAProxy), §2.1, §2.2.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass

from server.networks import parse_ip

# The specification's own advice is 536 bytes at most; real TLVs (a certificate's name) take some
# hundreds more, and 64 KiB, which the length could say, nobody sends in earnest.
MAX_BYTES = 4_096

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_BYTES = 16  # signature, version and command, family and transport, length
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half
_TCP4, _TCP6 = 0x11, 0x21
_FAMILIES_WITHOUT_CLIENT = frozenset({0x00, 0x31})  # unspecified; a unix stream
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36, 0x00: 0, 0x31: 216}

_TEXT_SIGNATURE = b"PROXY "
_TEXT_BYTES = 107  # the longest line of version 1, CRLF included
_TEXT = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP(?P<family>[46]) (?P<client>[0-9A-Fa-f:.]+) "
    rb"[0-9A-Fa-f:.]+ [0-9]{1,5} [0-9]{1,5})"
)


class MalformedHeader(ValueError):
    """The bytes are no header that means something here."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header. `client`: the address that it names, if any; `end`: where it ends."""

    client: str | None
    end: int


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header that `data` begins with; None while it is not whole.

    Raises `MalformedHeader`.
    """
    if data.startswith(_SIGNATURE):
        return _parse_binary(data)
    if data.startswith(_TEXT_SIGNATURE):
        return _parse_text(data)
    if _SIGNATURE.startswith(data) or _TEXT_SIGNATURE.startswith(data):
        return None
    # What it is instead is a client's, and no log's.
    raise MalformedHeader("no header of the PROXY protocol")


def _parse_text(data: bytes) -> ProxyHeader | None:
    line, crlf, _ = data[:_TEXT_BYTES].partition(b"\r\n")
    if not crlf:
        if len(data) >= _TEXT_BYTES:
            raise MalformedHeader("a line of version 1 that does not end")
        return None
    match = _TEXT.fullmatch(line)
    if match is None:
        raise MalformedHeader(f"a malformed line of version 1: {line!r}")
    end = len(line) + len(crlf)
    family = match["family"]
    if family is None:
        return ProxyHeader(None, end)
    try:
        address = ipaddress.ip_address(match["client"].decode("ascii"))
    except ValueError as exc:
        raise MalformedHeader(f"not an address: {match['client']!r}") from exc
    if address.version != int(family):
        raise MalformedHeader(f"an address of another family: {line!r}")
    return ProxyHeader(str(parse_ip(str(address))), end)


def _parse_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED_BYTES:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(_SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise MalformedHeader(f"unknown version and command 0x{command:02x}")
    end = _FIXED_BYTES + length
    if end > MAX_BYTES:
        raise MalformedHeader(f"a header of {end} bytes; at most {MAX_BYTES} are read")
    if len(data) < end:
        return None
    if command == _LOCAL:
        return ProxyHeader(None, end)
    return ProxyHeader(_read_client(family, data[_FIXED_BYTES:end]), end)


def _read_client(family: int, addresses: bytes) -> str | None:
    needed_bytes = _ADDRESS_BYTES.get(family)
    if needed_bytes is None:
        raise MalformedHeader(f"unknown family and transport 0x{family:02x}")
    if len(addresses) < needed_bytes:
        raise MalformedHeader(f"{len(addresses)} bytes of addresses; {needed_bytes} are needed")
    if family in _FAMILIES_WITHOUT_CLIENT:
        return None
    size_bytes = 4 if family == _TCP4 else 16
    return str(parse_ip(str(ipaddress.ip_address(addresses[:size_bytes]))))
