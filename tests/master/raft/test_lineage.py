"""Which group of masters a disk belongs to, as masters tell each other."""

from __future__ import annotations

import msgpack
import pytest

from dfs.errors import Failure
from master.raft import formats
from master.raft.membership import outdated

HELLO = {"type": "hello", "nonce": b"n", "founding": b"f"}


def test_a_master_of_before_says_nothing_of_it() -> None:
    assert formats.decode_message(msgpack.packb(HELLO))["lineage"] == 0
    told = formats.decode_message(formats.encode_message({**HELLO, "lineage": 17}))
    assert told["lineage"] == 17


def test_a_lineage_is_a_number() -> None:
    with pytest.raises(Failure, match="lineage must be int"):
        formats.decode_message(msgpack.packb({**HELLO, "lineage": "17"}))


def test_only_a_lower_one_is_out_of_date() -> None:
    assert outdated(5, 5, 2) is None
    assert outdated(5, 6, 2) is None
    assert "dfs master add 2" in (outdated(5, 0, 2) or "")
