"""The cache's index against a simple model, and its journal against damage."""

import zlib
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.cache import journal
from services.executor.egress.cache.index import Index
from services.executor.egress.cache.journal import Drop, Gone, Put, Row, Use
from services.executor.egress.cache.port import Entry
from services.executor.egress.ecosystems.port import Digest

ENTRY = Entry(
    key='["file","https://files.example.org/a",[]]', sha256="0" * 64, size=7, host="files.example.org",
    digest=Digest(algorithm="sha512", hex="ab"), etag='"x"', last_modified="Tue, 01 Dec 2026 00:00:00 GMT", fetched=1.5,
)  # fmt: skip

shas = st.sampled_from([digit * 64 for digit in "0123"])
entries = st.builds(
    lambda key, sha256, fetched: replace(ENTRY, key=key, sha256=sha256, size=int(sha256[0]) + 1, fetched=fetched),
    st.sampled_from("abcde"), shas, st.floats(min_value=0, max_value=2e9),
)  # fmt: skip
changes = st.lists(
    st.one_of(
        st.builds(Put, entries), st.builds(Use, shas), st.builds(Drop, st.sampled_from("abcde")), st.builds(Gone, shas)
    )
)


def apply(index: Index, rows: Iterable[Row]) -> list[str]:
    orphans = []
    for row in rows:
        match row:
            case Put(entry):
                orphans += index.put(entry)
            case Use(sha256):
                index.use(sha256)
            case Drop(key):
                orphans += index.drop(key)
            case Gone(sha256):
                orphans += index.discard(sha256)
    return orphans


class Model:
    """The same, without any cleverness: what leads where, and a list in order of use."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.entries: dict[str, Entry] = {}
        self.order: list[str] = []
        for row in rows:
            match row:
                case Put(entry):
                    self.entries[entry.key] = entry
                    self._used(entry.sha256)
                case Use(sha256) if sha256 in self.order:
                    self._used(sha256)
                case Drop(key):
                    self.entries.pop(key, None)
                case Gone(sha256):
                    self.entries = {key: entry for key, entry in self.entries.items() if entry.sha256 != sha256}
            wanted = {entry.sha256 for entry in self.entries.values()}
            self.order = [sha256 for sha256 in self.order if sha256 in wanted]

    def _used(self, sha256: str) -> None:
        self.order = [*(other for other in self.order if other != sha256), sha256]


@given(changes)
def test_the_index_is_the_model(rows: list[Row]) -> None:
    lines: list[bytes] = []
    index = Index(lines.append)
    apply(index, rows)
    model = Model(rows)
    assert {key: index.find(key) for key in "abcde"} == {key: model.entries.get(key) for key in "abcde"}
    assert list(index.blobs()) == model.order
    assert index.bytes == sum(int(sha256[0]) + 1 for sha256 in model.order)
    assert index.oldest() == (model.order[0] if model.order else None)


@given(changes)
def test_the_journal_brings_the_index_back(rows: list[Row]) -> None:
    lines: list[bytes] = []
    index = Index(lines.append)
    apply(index, rows)
    for content in (b"".join(lines), b"".join(journal.encode(row) for row in index.rows())):
        back = Index(lines.append)
        back.replay(journal.decode(content))
        assert list(back.rows()) == list(index.rows())
        assert back.blobs() == index.blobs()


@given(changes)
def test_blobs_without_an_entry_are_named(rows: list[Row]) -> None:
    index = Index(lambda _: None)
    seen = set()
    for row in rows:
        before = set(index.blobs())
        orphans = apply(index, [row])
        assert before - set(index.blobs()) == set(orphans)
        seen |= before
        assert len(orphans) == len(set(orphans))


@given(st.lists(st.builds(Put, entries), min_size=1, max_size=5), st.data())
def test_a_damaged_line_is_passed_over_and_no_other(rows: list[Put], data: st.DataObject) -> None:
    lines = [journal.encode(row) for row in rows]
    victim = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[victim]) - 1))
    torn = [*lines]
    torn[victim] = torn[victim][:cut]
    flipped = [*lines]
    position = data.draw(st.integers(1, len(lines[victim]) - 1))
    flipped[victim] = lines[victim][:position] + bytes([lines[victim][position] ^ 1]) + lines[victim][position + 1 :]
    expected = [row for number, row in enumerate(rows) if number != victim]
    assert list(journal.decode(b"".join(torn))) == expected
    assert list(journal.decode(b"".join(flipped))) == expected


def test_no_flipped_bit_goes_unnoticed() -> None:
    line = journal.encode(Put(ENTRY))
    for position in range(1, len(line)):
        flipped = line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :]
        assert list(journal.decode(flipped)) == [], position


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "7", '["put"]', '["use",1]', '["gone",null]', '["x","y"]', "[" * 50_000, '["drop","x"]',
     '["put","k","../../etc/passwd",1,"h",null,null,null,1.0]',
     f'["put","k","{"0" * 64}",-1,"h",null,null,null,1.0]',
     f'["put","k","{"0" * 64}",1,"h",["md5","00"],null,null,1.0]',
     f'["put","k","{"0" * 64}",1,"h",["sha1"],null,null,1.0]',
     f'["put","k","{"0" * 64}",1,"h",null,7,null,1.0]'],
)  # fmt: skip
def test_rows_of_the_wrong_shape(text: str) -> None:
    line = b"\n%08x %s" % (zlib.crc32(text.encode()), text.encode())
    assert list(journal.decode(line)) == ([Drop("x")] if "drop" in text else [])
