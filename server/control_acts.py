"""Commands carried out, by the running server or, where there is none, by a tool itself."""

from engine.acts import Acts
from engine.names import Digest
from engine.purge import PurgePlan
from server.control_messages import (
    Act,
    Changed,
    Pin,
    Purge,
    Purged,
    PurgedBlob,
    Quarantine,
    Quarantined,
    Reply,
    Unpin,
    subject_of,
)


async def carry_out(acts: Acts, command: Act) -> Reply:
    """Carry out a command by `acts`, in a server or without one. Raises `CacheError`."""
    match command:
        case Quarantine(digest, reason):
            path = await acts.quarantine(Digest.parse(digest), reason)
            return Quarantined(str(path) if path else None)
        case Purge(is_dry_run=is_dry_run):
            plan = await acts.purge(subject_of(command), is_dry_run=is_dry_run)
            return _describe_purge(plan, is_dry_run=is_dry_run)
        case Pin(glob):
            return Changed(await acts.pin(glob))
        case Unpin(glob):
            return Changed(await acts.unpin(glob))


def _describe_purge(plan: PurgePlan, *, is_dry_run: bool) -> Purged:
    blobs = [PurgedBlob(blob.digest, blob.size_bytes) for blob in plan.blobs]
    return Purged(is_dry_run, list(plan.tags), blobs, plan.kept_count)
