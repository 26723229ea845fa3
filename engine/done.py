"""What was done since the start, gathered from where it was counted. Pure."""

from engine.eviction import Reason
from engine.evictor import Tally
from engine.fill import Outcome
from engine.fill_tally import FillTally
from engine.live_views import DoneView, Weight
from engine.store import Store
from engine.upkeep import Upkeep


def sum_up(
    fills: FillTally, evicted: Tally, purged: Tally, upkeep: Upkeep, store: Store
) -> DoneView:
    """Gather all of it."""
    return DoneView(
        fills_ended={outcome.name.lower(): fills.ended[outcome] for outcome in Outcome},
        fills_resumed_count=fills.resumed_count,
        fills_retried_count=fills.retried_count,
        fills_adopted_count=fills.adopted_count,
        fills_unstored_count=fills.unstored_count,
        evicted={
            reason.value: Weight(
                evicted.counts[reason] + purged.counts[reason],
                evicted.sizes_bytes[reason] + purged.sizes_bytes[reason],
            )
            for reason in Reason
        },
        scrubbed=upkeep.scrubbed,
        damaged_count=store.custody.damaged_count,
        failed_write_count=store.index.connections.failed_write_count,
    )
