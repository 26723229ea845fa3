"""Tags that upstream says mean manifests which are not here yet. Pure.

Invariant: per tag, only upstream's last word counts. Until its manifest is here, the index keeps
what the tag meant before: that is still there to be served should upstream fail meanwhile.
"""

from engine.index_records import TagRecord
from engine.names import Digest, Location, Tag

# A client that asks what a tag means fetches the manifest at once, so few are waited for.
MAX_ENTRIES = 1_000


class Announced:
    """Records to be made once their manifests are here; bounded, oldest first."""

    def __init__(self) -> None:
        self._records: dict[tuple[Location, Tag], TagRecord] = {}

    def note(self, location: Location, record: TagRecord) -> None:
        """Keep `record` until its manifest is here."""
        self.drop(location, record.tag)
        self._records[location, record.tag] = record
        if len(self._records) > MAX_ENTRIES:
            del self._records[next(iter(self._records))]

    def drop(self, location: Location, tag: Tag) -> None:
        """Forget what was said of a tag: it is recorded, or gone."""
        self._records.pop((location, tag), None)

    def take(self, location: Location, digest: Digest) -> list[TagRecord]:
        """Give up the records of the tags that mean `digest`, which is here now."""
        found = [
            record
            for (where, _), record in self._records.items()
            if where == location and record.digest == digest
        ]
        for record in found:
            self.drop(location, record.tag)
        return found
