"""Runs the cases: in rounds, and in each round each case at one target after the other.

Invariant: targets that are compared are measured one right after the other, never at once, and
each round begins with another target; servers are started anew for each round.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec

from tools.bench_cases import Case, Cold, Crowded, Noise, Paced, Taken, Warm, Who, fresh_tag
from tools.bench_certificate import make_context
from tools.bench_content import MIB
from tools.bench_lab import Client, Lab
from tools.bench_model import Sample
from tools.bench_pace import Pace, PaceResult
from tools.bench_pull import ACCEPT, Plan, PullResult, fetch, stages_of
from tools.bench_servers import Server, Target
from tools.bench_slow import Crowd
from tools.bench_wrk import Load, WrkResult, run_wrk

PEAK_S = 1
SHARE_OF_PEAK = 0.3
# One generator in Python keeps up with no more; it has a processor and the noise beside it.
MAX_PACE = 8_000.0
_DOWNLOAD_BYTES_S = 50e6
_CHURN_BYTES_S = 100e6
# The kernel prefers the client that takes the time to those that make noise.
NOISE_NICE = 10
_HEAD_BYTES = 1_024  # more than any of these heads has

Samples = dict[tuple[str, str], list[Sample]]  # by case and target


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long it takes: rounds, the seconds of a warm case at a target, and all of it."""

    rounds: int
    seconds: int
    total_s: float


class Runner:
    """One benchmark."""

    def __init__(
        self,
        lab: Lab,
        wrk: str,
        targets: Sequence[Target],
        seconds: int,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` is called with what is done next, for people who wait."""
        self._lab = lab
        self._wrk = wrk
        self._targets = list(targets)
        self._seconds = seconds
        self._tell = tell

    def run(self, cases: Sequence[Case], bounds: Bounds) -> tuple[Samples, int]:
        """Run rounds while there is time; return the samples and how many rounds there were."""
        samples: Samples = {}
        started_at = time.monotonic()
        count = 0
        while count < bounds.rounds:
            self._run_round(cases, f"round {count + 1} of {bounds.rounds}", samples)
            self._targets.append(self._targets.pop(0))
            count += 1
            elapsed_s = time.monotonic() - started_at
            if elapsed_s + elapsed_s / count > bounds.total_s:
                break
        return samples, count

    def _run_round(self, cases: Sequence[Case], label: str, samples: Samples) -> None:
        apart = [case for case in cases if _has_own_servers(case)]
        warm = [case for case in cases if not _has_own_servers(case)]
        with self._run_warm(warm) as servers:
            self._run_cases(warm, label, servers, samples)
        # No server of the warm cases is left, which may go on with what its clients did not await.
        self._run_cases(apart, label, {}, samples)

    def _run_cases(
        self, cases: Sequence[Case], label: str, servers: Mapping[str, Server], samples: Samples
    ) -> None:
        for case in cases:
            for target in self._targets:
                if is_for(case, target):
                    self._tell(f"{label}: {case.name}, {target.name}")
                    sample = self._measure(case, target, servers)
                    samples.setdefault((case.name, target.name), []).append(sample)

    @contextmanager
    def _run_warm(self, cases: Sequence[Case]) -> Iterator[dict[str, Server]]:
        """Run the targets that some case needs warm; each has been asked for everything once."""
        servers: dict[str, Server] = {}
        with ExitStack() as stack:
            for target in self._targets:
                if any(is_for(case, target) for case in cases):
                    server = stack.enter_context(self._lab.run_target(target))
                    self._warm_up(server, target)
                    servers[target.name] = server
            yield servers

    def _warm_up(self, server: Server, target: Target) -> None:
        """Ask for what the warm cases ask for, and check it. Raises `PullFailed`."""
        app = self._lab.content.app
        asked = [app.by_tag, app.by_digest, *app.blobs]
        if target.holds_tags:
            asked.append(fresh_tag(app))
        tls = make_context() if server.is_tls else None
        for one in asked:
            fetch(server.address, one, tls=tls)
            # The mirror may still be storing it; what is warm comes from its disk.
            fetch(server.address, one, tls=tls)

    def _measure(self, case: Case, target: Target, servers: Mapping[str, Server]) -> Sample:
        match case.work:
            case Cold():
                return self._measure_cold(case.work, target)
            case Paced(noise=Noise.CHURN):
                with self._lab.run_target(target) as server:
                    fetch(server.address, case.work.asked)
                    return self._measure_warm(case.work, server)
            case Crowded():
                with self._lab.run_target(target) as server:
                    self._warm_up(server, target)
                    return self._measure_warm(case.work, server)
            case work:
                return self._measure_warm(work, servers[target.name])

    def _measure_cold(self, work: Cold, target: Target) -> Sample:
        before = self._lab.count_upstream()
        with self._lab.run_target(target, is_limited=work.is_limited) as server:
            plan = Plan(server.address, work.clients)
            client = self._lab.start_client("bench_pull", plan)
            sample = self._lab.observe(server, lambda: _read_pull(client))
        # What the mirror still fetched for itself counts as well.
        upstream_count = self._lab.count_upstream() - before
        return msgspec.structs.replace(sample, upstream_count=upstream_count)

    def _measure_warm(self, work: Warm | Paced | Taken | Crowded, server: Server) -> Sample:
        match work:
            case Warm():
                return self._lab.observe(
                    server, lambda: self._ask(server, work.load, work.body_bytes)
                )
            case Paced():
                return self._measure_paced(work, server)
            case Taken():
                clients = [[[work.asked]]] * work.client_count
                plan = Plan(server.address, clients, work.pace_bytes_s, self._seconds)
                return self._lab.observe(
                    server, lambda: _read_pull(self._lab.start_client("bench_pull", plan))
                )
            case Crowded():
                return self._measure_crowded(work, server)

    def _ask(self, server: Server, load: Load, body_bytes: int) -> Sample:
        found = run_wrk(self._wrk, server.url, load, self._seconds, self._lab.cpus.client)
        return judge(found, load, body_bytes)

    def _measure_paced(self, work: Paced, server: Server) -> Sample:
        peak = run_wrk(
            self._wrk,
            server.url,
            Load(work.asked.path, 32, (ACCEPT,)),
            PEAK_S,
            self._lab.cpus.client,
        )
        rate = min(MAX_PACE, peak.request_count / peak.duration_us * 1e6 * SHARE_OF_PEAK)
        seconds = self._seconds * 2
        asked = work.asked
        pace = Pace(server.address, asked.path, asked.size_bytes, rate, seconds, work.method)
        with self._make_noise(work.noise, server, seconds + 1.0):
            return self._lab.observe(
                server, lambda: _read_pace(self._lab.start_client("bench_pace", pace), pace)
            )

    @contextmanager
    def _make_noise(self, noise: Noise, server: Server, seconds: float) -> Iterator[None]:
        plan = self._plan_noise(noise, server, seconds)
        if plan is None:
            yield
            return
        client = self._lab.start_client("bench_pull", plan, nice=NOISE_NICE)
        try:
            yield
        finally:
            client.stop()

    def _plan_noise(self, noise: Noise, server: Server, seconds: float) -> Plan | None:
        content = self._lab.content
        match noise:
            case Noise.NOTHING:
                return None
            case Noise.DOWNLOADS:
                clients = [[[content.app.blobs[-1]]]] * 4
                return Plan(server.address, clients, _DOWNLOAD_BYTES_S, seconds)
            case Noise.CHURN:
                return Plan(server.address, [stages_of(content.churn)], _CHURN_BYTES_S, seconds)

    def _measure_crowded(self, work: Crowded, server: Server) -> Sample:
        crowd = Crowd(server.address, work.slow_path, work.slow_count, self._seconds + 1.0)
        client = self._lab.start_client("bench_slow", crowd)
        try:
            client.read_line()
            sample = self._lab.observe(
                server, lambda: self._ask(server, work.load, work.body_bytes)
            )
            lost_count = int(client.result().split()[-1])
        finally:
            client.stop()
        return msgspec.structs.replace(sample, failed_count=sample.failed_count + lost_count)


def is_for(case: Case, target: Target) -> bool:
    """Whether a case makes sense for a target."""
    if target.is_tls or case.who is Who.TLS:
        return target.is_tls and case.who is Who.TLS
    match case.who:
        case Who.ALL:
            return True
        case Who.MIRRORS:
            return target.is_mirror
        case Who.TAG_HOLDERS:
            return target.holds_tags


def judge(found: WrkResult, load: Load, body_bytes: int) -> Sample:
    """Make a sample of what wrk says; all have failed where the bytes cannot be those bodies."""
    at_least = found.request_count * body_bytes
    at_most = (found.request_count + load.connections) * (body_bytes + _HEAD_BYTES)
    is_plausible = at_least <= found.received_bytes <= at_most
    return Sample(
        request_count=found.request_count,
        # Of large bodies some are always under way, and few are ever complete.
        body_bytes=found.received_bytes if body_bytes >= MIB else at_least,
        elapsed_s=found.duration_us / 1e6,
        p50_s=found.p50_us / 1e6,
        p99_s=found.p99_us / 1e6,
        failed_count=found.failed_count if is_plausible else max(1, found.request_count),
    )


def _has_own_servers(case: Case) -> bool:
    """Whether each target is started for it: it begins with nothing, or leaves much behind."""
    return isinstance(case.work, Cold | Crowded) or (
        isinstance(case.work, Paced) and case.work.noise is Noise.CHURN
    )


def _read_pull(client: Client) -> Sample:
    found = msgspec.json.decode(client.result(), type=PullResult)
    return Sample(
        found.request_count,
        found.body_bytes,
        found.elapsed_s,
        first_byte_s=found.first_byte_s,
        failed_count=found.failed_count,
    )


def _read_pace(client: Client, pace: Pace) -> Sample:
    found = msgspec.json.decode(client.result(), type=PaceResult)
    return Sample(
        found.request_count,
        0 if pace.method == "HEAD" else found.request_count * pace.body_bytes,
        found.elapsed_s,
        p50_s=found.p50_s,
        p99_s=found.p99_s,
        failed_count=found.failed_count,
    )
