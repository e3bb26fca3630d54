"""What is written in runs comes out whole and in order, in pieces of a bounded size."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.cifar10_example_gen import runs
from components.cifar10_example_gen.runs import Entry


def some_entries(count: int, size: int = 100) -> list[Entry]:
    return [Entry(hashlib.blake2b(b"%d" % i, digest_size=8).digest(), i % 10, bytes(size)) for i in range(count)]


@given(
    entries=st.lists(
        st.builds(Entry, st.binary(min_size=8, max_size=8), st.integers(0, 9), st.binary(max_size=8)), max_size=40
    ),
    cuts=st.lists(st.integers(0, 40), max_size=3).map(sorted),
)
@settings(deadline=None)
def test_runs_merge_to_what_sorting_gives(
    entries: list[Entry], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
):
    folder = str(tmp_path_factory.mktemp("runs"))
    parts = [entries[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(entries)], strict=True)]
    sections = [runs.write_run(folder, part) for part in parts]
    assert list(runs.merge(sections)) == sorted(entries)


def test_the_order_is_also_that_of_equal_digests():
    same = [Entry(b"\x80" * 8, label, content) for label, content in [(3, b"b"), (3, b"a"), (1, b"c")]]
    assert sorted(same) == [same[2], same[1], same[0]]


def test_no_more_than_a_piece_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entries = some_entries(2_000)
    monkeypatch.setattr(runs, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(runs, "ENTRY_BYTES", 10)
    sections = [runs.write_run(str(tmp_path), entries[i::4]) for i in range(4)]
    pieces: list[tuple[int, int]] = []
    find_end = runs._end_of_piece

    def noting_the_end(sections: list[runs.Section], first: int) -> int:
        last = find_end(sections, first)
        pieces.append((first, last))
        return last

    monkeypatch.setattr(runs, "_end_of_piece", noting_the_end)
    assert list(runs.merge(sections)) == sorted(entries)
    assert [first for first, _ in pieces] == [0, *(last for _, last in pieces[:-1])]
    assert pieces[-1][1] == runs.NUM_BINS
    sizes = [sum(sum(section.sizes[first:last]) for section in sections) for first, last in pieces]
    assert sum(sizes) == 2_000 * (100 + 10)
    assert max(sizes) <= 20_000


def test_a_bin_that_is_larger_than_a_piece_is_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entries = [Entry(b"\x80" + b"%07d" % i, 0, bytes(100)) for i in range(50)]
    monkeypatch.setattr(runs, "PIECE_BYTES", 1_000)
    assert list(runs.merge([runs.write_run(str(tmp_path), entries)])) == entries


def test_nothing_is_no_entry(tmp_path: Path):
    assert list(runs.merge([])) == list(runs.merge([runs.write_run(str(tmp_path), [])])) == []
