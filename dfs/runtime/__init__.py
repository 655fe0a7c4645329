"""The seams: everything that a process asks of the world around it.

Owns the protocols `Clock`, `Network`, `Disk`, `KeyValue` and `Random`, and `Env`, which bundles
them for one node. `dfs.runtime.real` implements them over trio and the operating system,
`dfs.runtime.sim` on a virtual clock, network and disk, so that a whole cluster also runs in one
process and replays from one seed.

Nothing outside this package calls `time`, `random`, `os.urandom`, `socket`, `trio.sleep`,
`trio.move_on_after`, `open()` or threads; `tests/test_house.py` enforces it. trio's events, locks,
memory channels, nurseries and cancel scopes without a deadline are the same in both worlds.
"""

from dfs.runtime.clock import Clock
from dfs.runtime.disk import Disk, DiskSpace, File, KeyValue, WriteBatch
from dfs.runtime.env import Env, Random, Usage
from dfs.runtime.network import Buffer, Listener, Network, Stream

__all__ = [
    "Buffer",
    "Clock",
    "Disk",
    "DiskSpace",
    "Env",
    "File",
    "KeyValue",
    "Listener",
    "Network",
    "Random",
    "Stream",
    "Usage",
    "WriteBatch",
]
