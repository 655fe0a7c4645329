"""The masters' agreement on one log: Raft on pysyncobj, made durable and safe.

`node` is what the rest of the master uses: it runs the loop, with `links` to the other masters,
the queue of `proposals` and `snapshots`. `core` is the protocol itself, synchronous and without
I/O: pysyncobj (fitted in by `library`), its messages checked by `transport`, its log kept by
`journal`, with `membership` and `election` beside it. `formats` describes disk and wire.

The holes H1 to H20 of pysyncobj 0.3.17 that this package closes are named where they are closed;
`tests/master/raft` shows each of them open and closed.
"""

from master.raft.core import Machine
from master.raft.node import RaftNode

__all__ = ["Machine", "RaftNode"]
