"""`dfs fsck`: what an operator asks the leader, and what it finds. Wire ids 195 to 199.

The command line draws a random number for its check, starts it (`StartCheck`), and follows it
(`FollowCheck`) until it is finished; a check that nobody follows any more is given up. It lives in
the memory of one leader: NO_SESSION says that this one does not know it, and then it is begun anew.
All of it may be sent again.
"""

from __future__ import annotations

import enum

from dfs.rpc.codec import message


class Severity(enum.IntEnum):
    """What a finding means for the cluster; the highest one decides the exit code."""

    NOTE = 0  # worth knowing; nothing is wrong
    UNCHECKED = 1  # could not be looked at
    REDUNDANCY = 2  # everything is readable, but a further loss may hurt, or something lies about
    METADATA = 3  # the metadata contradict themselves
    DATA = 4  # something cannot be read just now, or never again


@message(195)
class StartCheck:
    """Begin the check of that number. Answers Done; UNAVAILABLE while another one runs.

    `deep`: chunkservers read every replica and verify it. `inode`: only findings on that file, or
    that directory and all below it, are told; 0 for all.
    """

    check: int
    deep: bool = False
    inode: int = 0


@message(196)
class FollowCheck:
    """Answers CheckProgress, with findings above the number `after`, as soon as there is news."""

    check: int
    after: int = 0


@message(198)
class Finding:
    """One thing that is not as it should be.

    `kind` is a fixed word for programs, `text` a sentence. `path` is one name of the file ("" where
    there is none), `offset` and `length_bytes` the range of it that is concerned (length 0: all of
    it). `mend` says what `MendFindings` would do about it, "" when nothing can be done without
    loss. `saved` is what mending takes away, as it is stored: key and value in msgpack.
    """

    number: int
    kind: str
    severity: int  # a Severity
    text: str
    path: bytes = b""
    inode: int = 0
    offset: int = 0
    length_bytes: int = 0
    handle: int = 0
    server: int = 0
    mend: str = ""
    saved: bytes = b""


@message(197)
class CheckProgress:
    """`done` of `total` of what this phase goes over (0: unknown). `finished`: nothing more comes.

    `problem` says why a check ended before it was complete. The counts are of what was looked at.
    """

    phase: str
    done: int
    total: int
    findings: tuple[Finding, ...]
    finished: bool
    problem: str = ""
    inodes: int = 0
    chunks: int = 0
    replicas: int = 0


@message(199)
class MendFindings:
    """Mend these findings of a finished check, as far as they say how; once. Answers Done.

    How far it is is asked with FollowCheck, phase "mending": what could not be mended comes as
    findings of the kind not-mended. What it brought is shown by another check.
    """

    check: int
    numbers: tuple[int, ...]
