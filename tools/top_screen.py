"""The screen of `moorage top`. Pure: it draws what is known, and asks nobody.

Invariant: text from outside (repositories, causes) is never read as markup or control characters;
what matters most is at the top, so a small terminal cuts the rest.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.units import humane_bytes, humane_span
from server.facts import Facts
from tools.output import Kind, plain
from tools.rates import Rates, fill_bytes_s, rates_of, series
from tools.status import describe_upstream

_BARS = " ▁▂▃▄▅▆▇█"
_SPARK_CHARS = 60
_GAUGE_CHARS = 40


@dataclass(frozen=True, slots=True)
class View:
    """What is known now. `before`: what was shown last. `unreachable_since`: unix seconds."""

    facts: Facts | None
    before: Facts | None = None
    unreachable_since: float | None = None
    cause: str = ""


def draw(view: View, height: int) -> RenderableType:
    """Draw all that fits into `height` lines."""
    facts = view.facts
    if facts is None:
        return _warn(view)
    parts: list[RenderableType] = [_head(facts)]
    if view.unreachable_since is not None:
        parts.append(_warn(view))
    parts += [_traffic(facts, view.before), _space(facts)]
    # Heads and borders take about 22 lines.
    rows = max(2, (height - 22) // 4)
    parts += [
        _upstreams(facts),
        _fills(facts, view.before, rows * 2),
        _errors(facts, rows),
        _pulled(facts, rows),
        Text("q quits", style="dim"),
    ]
    return Group(*parts)


def spark(values: list[float]) -> str:
    """Draw a series as bars, the largest value as the highest one."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[1] * len(values)
    return "".join(_BARS[1 + round(value / top * (len(_BARS) - 2))] for value in values)


def gauge(share: float, width: int) -> str:
    """Draw how much of a whole is taken."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def _warn(view: View) -> Text:
    since = datetime.fromtimestamp(view.unreachable_since or 0.0, UTC)
    text = f"not reachable since {since:%H:%M:%S} UTC: {plain(view.cause, Kind.TEXT)}"
    return Text(text, style="bold red")


def _head(facts: Facts) -> Text:
    server = facts.server
    style = "bold green" if server.state == "ready" else "bold yellow"
    return Text.assemble(
        ("Moorage ", "bold"),
        (f"{server.version}  ", ""),
        (server.state, style),
        f"  up {humane_span(server.now - server.started_at)}  pid {server.pid}"
        f"  {server.connection_count} connections  {' '.join(server.clients_at)}",
    )


def _traffic(facts: Facts, before: Facts | None) -> Table:
    now = rates_of(facts, before)
    history = series(facts.samples[:-1])[-_SPARK_CHARS:]
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text("requests"), Text(f"{now.requests_s:,.1f}/s", justify="right"), _line(history, "r")
    )
    grid.add_row(Text("sent"), Text(f"{humane_bytes(now.sent_bytes_s)}/s"), _line(history, "b"))
    share = facts.traffic.hit_share
    total = "no requests yet" if share is None else f"{share:.1%} since the start"
    grid.add_row(Text("hits"), Text(_share(now.hit_share)), Text(total, style="dim"))
    return grid


def _line(history: list[Rates], what: str) -> Text:
    values = [each.requests_s if what == "r" else each.sent_bytes_s for each in history]
    return Text(spark(values), style="cyan")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _space(facts: Facts) -> Text:
    space = facts.space
    share = (space.stored_bytes + space.reserved_bytes) / max(1, space.limit_bytes)
    style = "yellow" if space.stored_bytes + space.reserved_bytes > space.high_bytes else "green"
    return Text.assemble(
        "disk      ",
        (gauge(share, _GAUGE_CHARS), style),
        f"  {share:.1%}  {humane_bytes(space.stored_bytes)} of {humane_bytes(space.limit_bytes)}"
        f", {humane_bytes(space.reserved_bytes)} reserved",
    )


def _upstreams(facts: Facts) -> Table:
    table = _table("Upstream", "State", "Pulls left", "Requests")
    for each in facts.upstreams:
        state = describe_upstream(facts, each.name)
        left = "-" if each.remaining is None else f"{each.remaining} of {each.limit or '?'}"
        style = "green" if state == "ok" else "bold red"
        table.add_row(
            _safe(each.name), Text(plain(state, Kind.TEXT), style), left, f"{each.request_count:,}"
        )
    return table


def _fills(facts: Facts, before: Facts | None, rows: int) -> RenderableType:
    if not facts.fills:
        return Text("no downloads under way", style="dim")
    table = _table("Download", "Repository", "Progress", "", "Rate", "Readers")
    for fill in facts.fills[:rows]:
        share = fill.written_bytes / fill.size_bytes if fill.size_bytes else 0.0
        size = "?" if fill.size_bytes is None else humane_bytes(fill.size_bytes)
        table.add_row(
            fill.digest.partition(":")[2][:12],
            _safe(fill.repository),
            gauge(share, 16),
            f"{humane_bytes(fill.written_bytes)} of {size}",
            f"{humane_bytes(fill_bytes_s(fill, facts, before))}/s",
            str(fill.reader_count),
        )
    return table


def _errors(facts: Facts, rows: int) -> RenderableType:
    failures = [each for each in facts.errors if each.kind == "failure"][:rows]
    if not failures:
        return Text("no failures", style="dim")
    table = _table("Last", "Times", "Status", "Of", "Cause")
    for each in failures:
        ago = humane_span(facts.server.now - each.last_at)
        table.add_row(
            f"{ago} ago", f"{each.count:,}", str(each.status), _safe(each.repository),
            _safe(each.cause),
        )  # fmt: skip
    return table


def _pulled(facts: Facts, rows: int) -> RenderableType:
    if not facts.pulled:
        return Text("nothing pulled yet", style="dim")
    table = _table("Most pulled", "Manifests", "Blobs", "Sent")
    for each in facts.pulled[:rows]:
        table.add_row(
            _safe(each.repository),
            f"{each.manifest_count:,}",
            f"{each.blob_count:,}",
            humane_bytes(each.sent_bytes),
        )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    return table


def _safe(text: str) -> str:
    return escape(plain(text, Kind.TEXT))
