"""What is said of a file that TLS needs and that cannot be used."""


class TLSFilesError(Exception):
    """A file that TLS needs cannot be used. `key`: which of `http.tls` names it."""

    def __init__(self, key: str, path: str, reason: str, expected: str) -> None:
        super().__init__(f"http.tls.{key}: found {path!r}, {reason}, expected {expected}")
        self.key = key
        self.found = f"{path!r}, {reason}"
        self.expected = expected
