"""TLS as a transformation of bytes: what arrives is decrypted, what is to leave is encrypted.

Invariant: no plaintext comes out before the handshake is over, and no output is held back: what the
handshake has to say is taken by `take_output` after each `receive`.
Must not know: sockets, the loop, HTTP.

OpenSSL works on memory, not on the socket: reading by the loop's own transport stays as it is for
plain connections, and each write to the socket carries many records.
"""

import ssl
from contextlib import suppress

import msgspec

_RECORD_BYTES = 16 * 1024  # the most that one record holds (RFC 8446 §5.1)
# OpenSSL's reasons for a first line of HTTP where a handshake should be.
_HTTP_REASONS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
_UNTRUSTED = "the client does not trust our certificate: give it the CA"
_MEANINGS = {
    "HTTP_REQUEST": "the client speaks plain HTTP: configure https in it",
    "HTTPS_PROXY_REQUEST": "the client takes this for a proxy",
    "NO_SHARED_CIPHER": "the client offers no cipher suite that is allowed here",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate, and must",
    "SSLV3_ALERT_BAD_CERTIFICATE": _UNTRUSTED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew it",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _UNTRUSTED,
    "TLSV1_ALERT_UNKNOWN_CA": _UNTRUSTED,
    "UNSUPPORTED_PROTOCOL": "the client's TLS is too old: see http.tls.minimumtls",
    "WRONG_VERSION_NUMBER": "what the client sends is not TLS",
}


class TLSFault(Exception):
    """What arrived is not TLS, or not what was agreed on; its text names the cause."""

    def __init__(self, error: ssl.SSLError) -> None:
        super().__init__(_describe(error))
        self.is_plain_http = error.reason in _HTTP_REASONS


class Channel:
    """The server's side of one TLS connection."""

    __slots__ = ("_incoming", "_object", "_outgoing", "certificate_name", "is_at_end",
                 "is_begun", "is_established")  # fmt: skip

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_begun = False  # something has arrived
        self.is_established = False
        self.is_at_end = False  # the client said that it sends no more (close_notify)
        self.certificate_name: str | None = None  # of a client certificate that was verified

    def receive(self, data: bytes) -> bytes:
        """Take in what has arrived and return its plaintext, if any. Raises `TLSFault`."""
        self.is_begun = True
        self._incoming.write(data)
        try:
            if not self.is_established:
                self._object.do_handshake()
                self.is_established = True
                self.certificate_name = name_of(self._object.getpeercert() or {})
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as exc:
            raise TLSFault(exc) from exc

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Make records of `data`, after all that has been encrypted before."""
        self._object.write(data)
        return self._outgoing.read()

    def take_output(self) -> bytes:
        """Give what TLS itself has to send: handshake messages, alerts, tickets."""
        return self._outgoing.read()

    def end(self) -> bytes:
        """Give the record that says that nothing more comes (close_notify, RFC 8446 §6.1)."""
        # It asks for the client's own close_notify, which is not waited for; and after a fault, or
        # a second time, there is nothing to say.
        with suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        # OpenSSL keeps no whole record back, so an empty buffer means that all has been read; to
        # read on until it says so would cost an exception for each request.
        while self._incoming.pending and not self.is_at_end:
            try:
                piece = self._object.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            self.is_at_end = not piece
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Certificate(msgspec.Struct):
    """What is used of a certificate as the `ssl` module gives it."""

    subject: tuple[tuple[tuple[str, str], ...], ...] = ()
    subjectAltName: tuple[tuple[str, object], ...] = ()


def name_of(certificate: object) -> str | None:
    """Give a certificate's common name, else its first alternative name; None without both.

    `certificate` is what `getpeercert` gives. Pure.
    """
    read = msgspec.convert(certificate, _Certificate)
    common = [value for entry in read.subject for key, value in entry if key == "commonName"]
    others = [value for _, value in read.subjectAltName if isinstance(value, str)]
    return next(iter(common + others), None)


def _describe(error: ssl.SSLError) -> str:
    """Say what went wrong and what to do; `TLSV1_ALERT_X` is what the client says is wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is refused: {error.verify_message}"
    reason = error.reason or str(error)
    words = reason.lower().replace("_", " ")
    meaning = _MEANINGS.get(reason)
    return words if meaning is None else f"{meaning} ({words})"
