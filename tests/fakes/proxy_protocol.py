"""Headers of the PROXY protocol, version 2, as a proxy writes them."""

import ipaddress
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX, UNSPECIFIED = 0x11, 0x21, 0x31, 0x00


def binary_header(command: int, family: int, addresses: bytes = b"") -> bytes:
    """Put a header together."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


def binary_header_from(client: str) -> bytes:
    """Make the header of a TCP connection that `client` made to a proxy."""
    packed = ipaddress.ip_address(client).packed
    family = TCP4 if len(packed) == 4 else TCP6
    return binary_header(PROXY, family, packed * 2 + struct.pack("!HH", 4711, 443))
