"""Reading the state: lookup, listing directories while they change, the registry, the digest."""

from __future__ import annotations

import random

import pytest

from dfs.errors import Failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Done, Refused
from dfs.messages.metadata import DirectoryEntry
from dfs.messages.operations import Create, Rename, RenameFlags
from master.commands import SetServer
from master.state import StateMachine, queries
from tests.master.state.machine_driver import Driver, error_name
from tests.master.state.memory_tables import MemoryTables


def listing(machine: Driver, inode: int, limit: int, after: int = 0) -> list[DirectoryEntry]:
    """All pages from a cookie on."""
    entries: list[DirectoryEntry] = []
    while True:
        page = queries.read_directory(machine.tables, inode, after, limit)
        entries += page.entries
        assert 0 < len(page.entries) <= limit or page.complete
        if page.complete:
            return entries
        after = page.entries[-1].cookie


def failure(machine: Driver, inode: int, name: bytes) -> str:
    with pytest.raises(Failure) as caught:
        queries.lookup(machine.tables, inode, name)
    return error_name(caught.value.errno)


def test_lookup_resolves_names_and_dots(machine: Driver) -> None:
    one = machine.directory(b"one")
    two = machine.directory(b"two", one)
    lookup = queries.lookup
    assert lookup(machine.tables, one, b"two") == machine.attributes(two)
    assert lookup(machine.tables, two, b"..").inode == one
    assert lookup(machine.tables, two, b".").inode == two
    assert lookup(machine.tables, ROOT_INODE, b"..").inode == ROOT_INODE


def test_lookup_refuses(machine: Driver) -> None:
    inode = machine.file(b"f")
    assert failure(machine, ROOT_INODE, b"missing") == "ENOENT"
    assert failure(machine, ROOT_INODE, b"x" * 256) == "ENAMETOOLONG"
    assert failure(machine, inode, b"x") == "ENOTDIR"
    assert failure(machine, 4711, b"x") == "ENOENT"


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_any_size_give_every_entry_once(machine: Driver, limit: int) -> None:
    expected = {b"%d" % number: machine.file(b"%d" % number) for number in range(20)}
    entries = listing(machine, ROOT_INODE, limit)
    assert [e.name for e in entries[:2]] == [b".", b".."]
    assert [e.cookie for e in entries[:2]] == [1, 2]
    assert {e.name: e.attributes.inode for e in entries[2:]} == expected
    assert len(entries) == 22
    cookies = [e.cookie for e in entries]
    assert cookies == sorted(frozenset(cookies))


def test_cookies_beyond_all_give_nothing(machine: Driver) -> None:
    machine.file(b"a")
    for cookie in (1000, 2**63, 2**64 - 1):
        assert queries.read_directory(machine.tables, ROOT_INODE, cookie, 10).entries == ()
    assert len(queries.read_directory(machine.tables, ROOT_INODE, -1, 10).entries) == 3


def test_a_removed_directory_lists_nothing(machine: Driver) -> None:
    inode = machine.directory(b"d")
    machine.remove_directory(b"d")
    page = queries.read_directory(machine.tables, inode, 0, 10)
    assert (page.entries, page.complete) == ((), True)


def test_a_listing_gives_what_exists_throughout_exactly_once_whatever_happens_meanwhile(
    machine: Driver,
) -> None:
    for seed in range(30):
        _list_while_changing(machine, machine.directory(b"dir%d" % seed), random.Random(seed))


def _list_while_changing(machine: Driver, directory: int, choose: random.Random) -> None:
    stays = {b"stays%d" % n for n in range(20)}
    comes_and_goes = [b"moves%d" % n for n in range(20)]
    for name in sorted(stays | set(comes_and_goes[:10]), key=lambda _: choose.random()):
        machine.file(name, directory)
    seen: list[bytes] = []
    after, complete = 0, False
    while not complete:
        page = queries.read_directory(machine.tables, directory, after, choose.randrange(1, 5))
        seen += [e.name for e in page.entries]
        complete = page.complete
        after = page.entries[-1].cookie if page.entries else after
        for _ in range(3):
            _change(machine, directory, choose, sorted(stays), comes_and_goes)
    for name in [b".", b"..", *stays]:
        assert seen.count(name) == 1, name


def _change(
    machine: Driver, directory: int, choose: random.Random, stays: list[bytes], others: list[bytes]
) -> None:
    """Create, remove, rename; names that stay may be replaced or exchanged, never missing."""
    name, other = choose.choice(others), choose.choice(others)
    target = choose.choice([other, choose.choice(stays)])
    step = choose.randrange(4)
    if step == 0:
        machine.perform(Create(directory, name, 0o644, False, ROOT))
    elif step == 1 and name in machine.names(directory):
        machine.remove(name, directory)
    elif step == 2:
        machine.perform(Rename(directory, name, directory, target, 0, ROOT))
    else:
        exchange = int(RenameFlags.EXCHANGE)
        machine.perform(Rename(directory, name, directory, target, exchange, ROOT))


def test_a_page_costs_what_is_on_it_not_what_is_in_the_directory(machine: Driver) -> None:
    for number in range(2000):
        machine.file(b"%d" % number)
    read = 0
    get = machine.tables.get

    def counting(table: str, key: bytes) -> bytes | None:
        nonlocal read
        read += 1
        return get(table, key)

    machine.tables.get = counting  # type: ignore[method-assign]
    entries = queries.read_directory(machine.tables, ROOT_INODE, 1500, 10).entries
    assert (len(entries), read) == (10, 11)


def test_operations_cost_the_same_in_a_large_directory(machine: Driver) -> None:
    def writes(name: bytes) -> int:
        before = machine.tables.writes
        machine.file(name)
        machine.rename((ROOT_INODE, name), (ROOT_INODE, b"other"))
        machine.remove(b"other")
        return machine.tables.writes - before

    writes(b"first")  # has no answer before it to forget
    small = writes(b"small")
    for number in range(3000):
        machine.file(b"%d" % number)
    assert writes(b"large") == small


def test_read_link_is_for_symlinks(machine: Driver) -> None:
    inode = machine.file(b"f")
    with pytest.raises(Failure) as caught:
        queries.read_link(machine.tables, inode)
    assert error_name(caught.value.errno) == "EINVAL"


def test_the_registry_of_chunkservers(machine: Driver) -> None:
    assert machine.command(SetServer(2, "b:2", "z2")) == Done()
    assert machine.command(SetServer(1, "a:1", "")) == Done()
    machine.command(SetServer(2, "b:3", "z2"))
    assert queries.servers(machine.tables) == ((1, "a:1", ""), (2, "b:3", "z2"))
    assert queries.server_entry(machine.tables, 2) == ("b:3", "z2")
    assert queries.server_entry(machine.tables, 3) is None
    for command in (SetServer(-1, "", ""), SetServer(2**32, "", ""), SetServer(1, "x" * 2000, "")):
        assert isinstance(machine.command(command), Refused)


def test_counts_and_an_empty_state() -> None:
    tables = MemoryTables()
    StateMachine(tables)
    assert queries.counts(tables) == queries.Counts(0, 0, 0)
    assert queries.sessions(tables) == ()


def test_orphans_are_listed_in_pages(machine: Driver) -> None:
    inodes = [machine.file(b"%d" % number) for number in range(5)]
    for number in range(5):
        machine.remove(b"%d" % number)
    assert queries.orphans(machine.tables, 3) == tuple(inodes[:3])
    assert queries.orphans(machine.tables, 3, after=inodes[2]) == tuple(inodes[3:])


def test_the_digest_shows_every_difference(machine: Driver) -> None:
    seen = {queries.state_digest(machine.tables)}
    for table in machine.tables.tables:
        for key, value in ((b"k", b"v"), (b"k", b"w"), (b"kw", b"")):
            machine.tables.put(table, key, value)
            seen.add(queries.state_digest(machine.tables))
            machine.tables.delete(table, key)
    assert len(seen) == 1 + 3 * len(machine.tables.tables)
    assert queries.state_digest(machine.tables) in seen
