"""Whatever goes wrong, no secret comes out: in no line, answer, process list or file."""

import json
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.fakes.accounts import basic, hash_of, write_accounts
from tests.fakes.mirror import Config, Site, site_of
from tests.fakes.upstream import ScriptedUpstream, ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.raw import Answer, ask
from tests.system.secret_cases import BLOB, MANIFEST, TAGS, Case, Secrets, make_cases
from tools.cli import main

pytestmark = pytest.mark.system

REPOSITORY = "acme/app"
_SHOWN_LINES = 10


@dataclass
class Out:
    """Everything that came out."""

    texts: list[str] = field(default_factory=list)

    def check(self, secrets: list[str]) -> None:
        """Look for every secret, and for what Base64 makes of it within a longer text."""
        lines = "\n".join(self.texts).splitlines()
        forms = [form for one in secrets for form in _forms(one)]
        leaks = [line for line in lines if any(form in line for form in forms)]
        assert not leaks, "\n".join(leaks[:_SHOWN_LINES])


def _forms(secret: str) -> list[str]:
    """Give a secret as it is, and what it is within Base64, wherever it begins there."""
    encoded = [b64encode(b"x" * shift + secret.encode()).decode() for shift in range(3)]
    return [secret, *(one[4:-4] for one in encoded)]


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream that fails in one way, and a layer that only it has."""

    case: Case
    upstream: ScriptedUpstream
    layer: str


class Rig:
    """A mirror all of whose neighbours know secrets."""

    def __init__(self, directory: Path, thread: ThreadedUpstream) -> None:
        self.directory = directory
        self.thread = thread
        self.secrets = Secrets()
        self.out = Out()
        self.users = {name: self.secrets.make() for name in ("ann", "bob", "cid")}
        self.client_password = self.secrets.make()
        self.seen_by_helper = directory / "seen-by-helper"
        cases = make_cases(self.secrets, thread.upstream)
        self.targets = {
            f"case-{number}.test": self._start(case, number) for number, case in enumerate(cases)
        }

    def _start(self, case: Case, number: int) -> Target:
        upstream = ScriptedUpstream()
        self.thread.run(upstream.__aenter__())
        upstream.auth.require_token(**self.users)
        upstream.redirect_blobs = 307
        layer = make_bytes(200_000, seed=number)
        image = upstream.content.add_image(REPOSITORY, "1", (layer,))
        upstream.fail(case.fault, kind=case.kind, times=None)
        return Target(case, upstream, image.layers[0])

    def close(self) -> None:
        """Stop the upstreams."""
        for target in self.targets.values():
            self.thread.run(target.upstream.__aexit__())

    def lay_out(self) -> Site:
        """Lay out the mirror, with a namespace for each target."""
        accounts = self.directory / "htpasswd"
        write_accounts(accounts, ci=self.client_password)
        site = site_of(self.directory / "mirror", self.thread.upstream.url)
        config: Config = {
            "log": {"level": "debug"},
            "http": {
                "addr": "127.0.0.1:0",
                "secret": self.secrets.make(),
                "debug": {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}},
            },
            "redis": {"password": self.secrets.make()},
            "auth": {"htpasswd": {"realm": "r", "path": str(accounts)}},
            "access": {"default": "allow", "rules": [{"deny": ["*/shut"]}]},
            "upstreams": dict(self._upstreams()),
        }
        return Site(site.directory, site.config | config)

    def _upstreams(self) -> Iterator[tuple[str, Config]]:
        logins = self._logins()
        for number, (name, target) in enumerate(self.targets.items()):
            yield name, {"remoteurl": target.upstream.url, **logins[number % len(logins)]}
        demanding = next(iter(self.targets.values())).upstream.url
        for number, script in enumerate(self._broken_helpers()):
            helper = {"command": str(self._write_helper(f"broken-{number}", script))}
            yield f"helper-{number}.test", {"remoteurl": demanding, "exec": helper}
        for scheme in ("http", "https"):
            url = f"{scheme}://{scheme}.test"
            yield f"{scheme}.test", {"remoteurl": url, "password": self.secrets.make()}

    def _logins(self) -> list[Config]:
        """Have credentials in each of the ways there are."""
        file = self.directory / "password"
        file.write_text(f"{self.users['bob']}\n")
        said = json.dumps({"Username": "cid", "Secret": self.users["cid"]})
        looks = f"cat /proc/$PPID/cmdline /proc/$$/cmdline >> '{self.seen_by_helper}'"
        helper = self._write_helper("good", f"{looks}\necho '{said}'")
        return [
            {"username": "ann", "password": self.users["ann"]},
            {"username": "bob", "passwordfile": str(file)},
            {"exec": {"command": str(helper), "lifetime": 0}},
        ]

    def _broken_helpers(self) -> Iterator[str]:
        yield f"""echo '{{"Username": "x", "Secret": "{self.secrets.make()}"'"""
        yield f"""echo '{{"Username": "x", "Secret": ["{self.secrets.make()}"]}}'"""
        yield f"""echo '{{"Username": "x", "Secret": "{self.secrets.make()}"}}'; exit 1"""
        yield f"""echo '{{"Username": "<token>", "Secret": "{self.secrets.make()}"}}'"""

    def _write_helper(self, name: str, script: str) -> Path:
        path = self.directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        path.chmod(0o755)
        return path

    def environment(self) -> dict[str, str]:
        """Proxies with a login: one that is not there, one that does not connect."""
        refusing = self.thread.upstream.registry.url.removeprefix("http://")
        return {
            "HTTP_PROXY": f"http://ann:{self.secrets.make()}@127.0.0.1:1",
            "HTTPS_PROXY": f"http://ann:{self.secrets.make()}@{refusing}",
            "REGISTRY_PROXY_USERNAME": "ann",
            "REGISTRY_PROXY_PASSWORD": self.users["ann"],
        }

    def ask(
        self, address: str, target: str, method: str = "GET", authorization: str = ""
    ) -> Answer:
        """Ask as a client that has logged in, and keep what it was told."""
        sent = {"Authorization": authorization or basic("ci", self.client_password)}
        answer = ask(address, target, sent, method)
        self.out.texts += [str(answer.headers), answer.body.decode("latin-1")]
        return answer

    def list_requests(self) -> Iterator[tuple[str, str]]:
        """List what drives every failure: targets and methods."""
        for name, target in self.targets.items():
            path = target.case.path.format(layer=target.layer)
            yield f"/v2/{REPOSITORY}/{path}?ns={name}", target.case.method
        names = [f"helper-{number}.test" for number in range(4)]
        for name in (*names, "http.test", "https.test"):
            yield f"/v2/{REPOSITORY}/{MANIFEST}?ns={name}", "GET"
        # What clients put into a request themselves.
        for path in (MANIFEST, BLOB.format(layer="nonsense"), TAGS, "nothing"):
            yield f"/v2/acme/shut/{path}?token={self.secrets.make()}", "GET"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ThreadedUpstream() as thread:
        made = Rig(tmp_path, thread)
        yield made
        made.close()


def log_in_vainly(rig: Rig, address: str) -> None:
    secrets = rig.secrets
    for sent in (
        basic("ci", secrets.make()),
        basic(secrets.make(), secrets.make()),
        f"Bearer {secrets.make()}",
        f"Basic {secrets.make()}",
    ):
        assert rig.ask(address, f"/v2/?token={secrets.make()}", authorization=sent).status == 401


def test_no_failure_tells_a_secret(rig: Rig) -> None:
    site = rig.lay_out()
    with site.start(**rig.environment()) as mirror:
        requests = list(rig.list_requests())
        with ThreadPoolExecutor(len(requests)) as pool:
            answers = list(pool.map(lambda one: rig.ask(mirror.address, *one), requests))
        assert all(answer.status >= 400 or answer.is_cut for answer in answers)
        log_in_vainly(rig, mirror.address)
        debug = mirror.child.wait_for(r"debug port open addr=(\S+)")[1]
        for path in ("/metrics", "/healthz", "/readyz", "/"):
            rig.ask(debug, path)
        rig.out.texts.append(Path(f"/proc/{mirror.child.pid}/cmdline").read_text())
        assert mirror.drain() == 0
        rig.out.texts += mirror.child.lines()
    rig.out.texts.append(rig.seen_by_helper.read_text())
    rig.out.texts += [file.read_text("latin-1") for file in site.data.rglob("*") if file.is_file()]
    tokens = [token for one in rig.targets.values() for token in one.upstream.auth._tokens]
    assert tokens
    rig.out.check([*rig.secrets.all, *tokens, hash_of(rig.client_password)])


def check_config(tmp_path: Path, text: str, option: str, environment: dict[str, str]) -> Result:
    """Check a configuration as `moorage check-config` does."""
    file = tmp_path / "config.yml"
    file.write_text(text)
    runner = CliRunner(env=environment)
    return runner.invoke(main, ["check-config", str(file), *filter(None, [option])])


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_configuration_is_shown_without_its_secrets(rig: Rig, option: str) -> None:
    text = yaml.safe_dump(rig.lay_out().config)
    done = check_config(rig.directory, text, option, rig.environment())
    assert done.exit_code == 0
    assert "***" in done.output
    rig.out.texts.append(done.output)
    rig.out.check(rig.secrets.all)


BROKEN = [
    "proxy: {remoteurl: 'https://ann:SECRET@x.example'}",
    "proxy: {remoteurl: 'https://x.example/?token=SECRET'}",
    "proxy: {namespaces: ['https://ann:SECRET@x.example']}",
    "proxy: {password: [SECRET]}",
    "proxy: {password: {SECRET: x}}",
    "proxy: {password: *SECRET}",
    "proxy: {password: @SECRET}",
    "proxy: {password: SECRET, passwordfile: x}",
    "proxy: {password: SECRET: x}",
    "proxy: {password: 'SECRET}",
    "proxy: {password: SECRET, passwrd: SECRET}",
    "upstreams: {'https://ann:SECRET@ghcr.io': {}}",
    "upstreams: {'ann:SECRET@ghcr.io': {tagttl: soon}}",
    "access: {rules: [{allow: 'https://ann:SECRET@ghcr.io/*'}]}",
    "http: {addr: 'ann:SECRET@127.0.0.1:5000'}",
    "http: {trustedproxies: ['ann:SECRET@10.0.0.1']}",
    "redis: {password: [SECRET]}",
]


VARIABLES = [
    ("REGISTRY_PROXY_PASSWORD", "[SECRET"),
    ("REGISTRY_PROXY_PASSWORD", "*SECRET"),
    ("REGISTRY_PROXY_REMOTEURL", "https://ann:SECRET@x.example"),
    ("REGISTRY_UPSTREAMS", "{ghcr.io: {password: [SECRET]}}"),
]


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_mistake_is_told_without_the_secret_in_it(tmp_path: Path, option: str) -> None:
    secrets, out = Secrets(), Out()
    cases = [(text, "UNRELATED", "") for text in BROKEN]
    for text, name, value in cases + [("", *variable) for variable in VARIABLES]:
        secret = secrets.make()
        broken = f"version: 0.1\n{text.replace('SECRET', secret)}\n"
        done = check_config(tmp_path, broken, option, {name: value.replace("SECRET", secret)})
        assert done.exit_code == 2, text or name
        out.texts.append(done.output)
    out.check(secrets.all)
