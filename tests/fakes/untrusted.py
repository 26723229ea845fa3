"""A TLS server's certificate that nobody signed but itself, so that no client trusts it."""

import ssl
from pathlib import Path

from tools.bench_certificate import make_pair


def make_untrusted_tls(directory: Path) -> ssl.SSLContext:
    """Make a server's context for 127.0.0.1; its key lies in `directory`."""
    pair = make_pair(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context
