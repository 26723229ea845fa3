"""Bounds on what is spent on an upstream. Values only; tests make them small."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes. The contract fixes `stall_s`, `pause_*` and `probe_s`."""

    connect_s: float = 5.0  # TCP and TLS, for one address family after the other
    # One attempt until its head is here (small bodies: all of it). Shorter than a cold blob's
    # 25 s, so that a request which got lost is tried again while the client still waits.
    attempt_s: float = 10.0
    stall_s: float = 15.0  # between two pieces of a body
    helper_s: float = 10.0  # a credential helper's run
    helper_renew_s: float = 60.0  # refused credentials of a helper this old are asked for anew

    backoff_first_s: float = 0.1
    backoff_max_s: float = 2.0

    pause_default_s: float = 60.0  # a 429 without Retry-After
    pause_max_s: float = 3600.0
    probe_s: float = 60.0  # between two probes of a pause

    breaker_after_s: float = 1.0  # a shorter operation that fails does not say much
    breaker_first_s: float = 2.0
    breaker_max_s: float = 30.0

    max_redirects: int = 5
    max_fresh_urls: int = 3  # asked of upstream where a redirect's target refuses
    max_pages: int = 1000
    max_manifest_bytes: int = 32 * 1024 * 1024
    max_list_bytes: int = 64 * 1024 * 1024  # all pages of tags or referrers
    max_error_bytes: int = 64 * 1024
    max_remembered: int = 10_000  # repositories' challenges, and tokens
    # aiohttp stops reading at twice as much. uvloop reads up to 256,000 bytes at a time, so this is
    # one read in a turn of the loop: with a second one all others would wait twice as long.
    read_buffer_bytes: int = 64 * 1024
