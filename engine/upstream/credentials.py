"""Whose requests these are: configured, from a docker-credential-helper, or nobody's.

Secrets are in no `repr`, message or log. The helper's protocol: `get` as its argument, the
server's name on stdin, JSON on stdout (docker-credential-helpers), as distribution's `proxy.exec`.
"""

import asyncio
import base64
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from yarl import URL

from engine.errors import UpstreamDenied, UpstreamUnavailable
from engine.json_text import MalformedJSON, decode_json
from engine.settings import HelperSettings, UpstreamSettings
from engine.single_flight import SingleFlight
from engine.upstream.clock import loop_now
from engine.upstream.kinds import Counts
from engine.upstream.limits import Limits

_IDENTITY_TOKEN_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Credential:
    """A name and a password or access key."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of `Authorization: Basic` (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class _RawCredential(msgspec.Struct):
    Username: str
    Secret: str


class Credentials:
    """The credential of one upstream."""

    def __init__(self, settings: UpstreamSettings, limits: Limits, counts: Counts) -> None:
        self._settings = settings
        self._limits = limits
        self._counts = counts
        self._found: Credential | None = None
        self._found_at = 0.0
        self._flight: SingleFlight[str, Credential] = SingleFlight()

    def adopt(self, settings: UpstreamSettings) -> bool:
        """Go by other settings from now on; return whether they name somebody else."""
        old, self._settings = self._settings, settings
        is_new = (old.username, old.password, old.helper) != (
            settings.username,
            settings.password,
            settings.helper,
        )
        if is_new:
            self._found = None
        return is_new

    async def get(self, server: URL) -> Credential | None:
        """Give the credential, None for nobody. `server`: who asks for it, told to a helper.

        A helper runs once for all who ask meanwhile. Raises `UpstreamDenied` where it has none
        or fails, `UpstreamUnavailable` where it does not end.
        """
        helper = self._settings.helper
        if helper is None:
            if self._settings.username is None and self._settings.password is None:
                return None
            return Credential(self._settings.username or "", self._settings.password or "")
        if self._found is not None and not self._is_expired(helper, loop_now()):
            return self._found
        credential, _ = await self._flight.run(
            helper.command, lambda: self._run_helper(helper, server)
        )
        return credential

    def _is_expired(self, helper: HelperSettings, now: float) -> bool:
        return helper.lifetime_s is not None and now >= self._found_at + helper.lifetime_s

    def refused(self, now: float) -> None:
        """Ask the helper again next time: what it said is refused, and not brand new.

        Cloud registries' credentials end after some hours even where no lifetime is configured.
        """
        if now >= self._found_at + self._limits.helper_renew_s:
            self._found = None

    async def _run_helper(self, helper: HelperSettings, server: URL) -> Credential:
        self._counts.helper_runs += 1
        name = server.host_port_subcomponent or ""
        try:
            async with asyncio.timeout(self._limits.helper_s):
                code, output, errors = await _run(helper.command, name)
        except TimeoutError as exc:
            message = (
                f"credential helper {helper.command} did not end in {self._limits.helper_s:g} s"
            )
            raise UpstreamUnavailable(message) from exc
        except OSError as exc:
            raise UpstreamDenied(f"credential helper {helper.command}: {exc.strerror}") from exc
        if code != 0:
            # On failure a helper's stdout bears a message; a broken one may say a credential.
            words = b"" if b'"Secret"' in output else output
            said = first_line(errors) or first_line(words) or "it said nothing"
            raise UpstreamDenied(f"credential helper {helper.command} failed ({code}): {said}")
        credential = _read_credential(helper.command, output)
        if helper == self._settings.helper:  # it may have been replaced meanwhile
            self._found, self._found_at = credential, loop_now()
        return credential

    async def aclose(self) -> None:
        """End a helper that runs."""
        await self._flight.aclose()


def _read_credential(command: str, output: bytes) -> Credential:
    try:
        raw = decode_json(output, _RawCredential)
    except MalformedJSON:
        # Not chained: the decoder's message may quote the secret.
        raise UpstreamDenied(f"credential helper {command} gave no credential") from None
    if raw.Username == _IDENTITY_TOKEN_USER:
        message = f"credential helper {command} gave an identity token; a password is needed"
        raise UpstreamDenied(message)
    return Credential(raw.Username, raw.Secret)


async def _run(command: str, server: str) -> tuple[int, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        command, "get", stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        output, errors = await process.communicate(server.encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output, errors


def first_line(output: bytes) -> str:
    """Cut a program's complaint down to what fits a message."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[0][:200] if lines else ""
