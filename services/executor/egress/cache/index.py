"""Which key led to which blob, and which blob was used when: in memory, with a journal that brings it back."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from services.executor.egress.cache import journal
from services.executor.egress.cache.journal import Drop, Gone, Put, Row, Use
from services.executor.egress.cache.port import Entry


@dataclass(slots=True)
class _Blob:
    size: int
    keys: set[str] = field(default_factory=set)


class Index:
    """Entries by key and blobs by age of use.

    Every change is handed to `note` once it is done, as a line of the journal.
    Methods that leave blobs without an entry give their SHA-256: their files are then nobody's.
    """

    def __init__(self, note: Callable[[bytes], None]) -> None:
        self._note = note
        self._entries: dict[str, Entry] = {}
        # The one that was not used for longest comes first.
        self._blobs: OrderedDict[str, _Blob] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What all blobs take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """The entry at a key."""
        return self._entries.get(key)

    def blobs(self) -> dict[str, int]:
        """Every blob's size by its SHA-256, the least recently used first."""
        return {sha256: blob.size for sha256, blob in self._blobs.items()}

    def oldest(self) -> str | None:
        """The blob that was not used for longest."""
        return next(iter(self._blobs), None)

    def put(self, entry: Entry) -> list[str]:
        """Put an entry in place of what stands at its key; its blob counts as used."""
        orphans = self._unlink(entry.key) if self._leads_elsewhere(entry) else []
        self._entries[entry.key] = entry
        blob = self._blobs.get(entry.sha256)
        if blob is None:
            blob = self._blobs[entry.sha256] = _Blob(entry.size)
            self._bytes += entry.size
        blob.keys.add(entry.key)
        self._blobs.move_to_end(entry.sha256)
        self._note(journal.encode(Put(entry)))
        return orphans

    def use(self, sha256: str) -> None:
        """Count a blob as used, if it is there."""
        if sha256 in self._blobs:
            self._blobs.move_to_end(sha256)
            self._note(journal.encode(Use(sha256)))

    def drop(self, key: str) -> list[str]:
        """Remove what stands at a key."""
        if key not in self._entries:
            return []
        orphans = self._unlink(key)
        self._note(journal.encode(Drop(key)))
        return orphans

    def discard(self, sha256: str) -> list[str]:
        """Remove a blob and everything that leads to it."""
        blob = self._blobs.pop(sha256, None)
        if blob is None:
            return []
        self._bytes -= blob.size
        for key in blob.keys:
            del self._entries[key]
        self._note(journal.encode(Gone(sha256)))
        return [sha256]

    def replay(self, rows: Iterable[Row]) -> None:
        """Repeat what a journal says; nothing is handed to `note`."""
        note, self._note = self._note, _ignore
        for row in rows:
            match row:
                case Put(entry):
                    self._replay_put(entry)
                case Use(sha256):
                    self.use(sha256)
                case Drop(key):
                    self.drop(key)
                case Gone(sha256):
                    self.discard(sha256)
        self._note = note

    def rows(self) -> Iterator[Row]:
        """The shortest journal that brings this index back."""
        for blob in self._blobs.values():
            for key in sorted(blob.keys):
                yield Put(self._entries[key])

    def _replay_put(self, entry: Entry) -> None:
        blob = self._blobs.get(entry.sha256)
        # Rows that contradict each other can only come from a damaged journal.
        if blob is None or blob.size == entry.size:
            self.put(entry)

    def _leads_elsewhere(self, entry: Entry) -> bool:
        earlier = self._entries.get(entry.key)
        return earlier is not None and earlier.sha256 != entry.sha256

    def _unlink(self, key: str) -> list[str]:
        entry = self._entries.pop(key)
        blob = self._blobs[entry.sha256]
        blob.keys.discard(key)
        if blob.keys:
            return []
        del self._blobs[entry.sha256]
        self._bytes -= blob.size
        return [entry.sha256]


def _ignore(_line: bytes) -> None:
    """A replayed change is in the journal already."""
