"""One data directory: whose it is, where its replicas stand, how full and how healthy its disk is.

    DIR/identity.json          who owns the directory (below); written once
    DIR/lock                   held by the running process
    DIR/replicas/H/HANDLE      one file per replica, see `format`; HANDLE is 16 hex digits, H the
                               handle shifted right by 12 bits in hex: 4096 chunks in a row share
                               a directory
    DIR/quarantine/            what cannot be used, kept for people to look at; see `quarantine`
    DIR/scrub.json             how far the scrub is; see `scrub_state`
    DIR/masters                where the masters are, see `members`
    DIR/lineage                which group of masters the server belongs to, see `lineage`

identity.json: {"magic": "dfs chunkserver data directory", "format": 1, "cluster": NAME,
"server": ID, "directory": 32 hex digits}.

A disk that answers EIO or EROFS to a change goes read-only and unhealthy until the server restarts:
after a failed sync nobody knows what the page cache still holds. A block that it cannot read is a
damaged block; only `read_errors_max` of them condemn the disk. Nothing is ever deleted here but
what the master ordered (`remove`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

from chunkserver import format as layout
from chunkserver import sectors
from chunkserver.format import DATA_OFFSET, Header
from chunkserver.lane import Lane
from chunkserver.quarantine import Quarantine
from chunkserver.reopening import headers_on_disk
from chunkserver.replica import Replica
from dfs.config import ChunkserverLimits
from dfs.errors import Code, Failure
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import DiskReport
from dfs.runtime import DiskSpace, Env, File

log = logging.getLogger(__name__)

IDENTITY_MAGIC = "dfs chunkserver data directory"
IDENTITY_FORMAT = 1
_HANDLES_PER_DIRECTORY_BITS = 12
_UNHEALTHY = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EUCLEAN})


class DataDir:
    """A directory that this server owns. `address` names the server in errors."""

    def __init__(self, env: Env, path: str, limits: ChunkserverLimits, address: str) -> None:
        self._env, self.path, self._limits, self._address = env, path, limits, address
        self.lane = Lane(env, path, limits.inline_below_s, limits.slow_memory_s)
        self.quarantine = Quarantine(env, f"{path}/quarantine", limits.quarantine_bytes)
        self.problem = ""
        self.replicas = 0
        self._boot = env.disk.boot()
        self.read_errors = 0
        self.scrubbed_ns, self.scrub_fraction = 0, 0.0  # as `scrub` says
        self.unreadable: list[int] = []  # handles of files that `scan` could make nothing of
        self._space = DiskSpace(0, 0)
        self._written_bytes = 0  # since `_space` was measured
        self._made: dict[str, None] = {}  # fan-out directories known to exist
        self._synced: dict[str, None] = {}  # those without a new, unsynced entry

    @property
    def writable(self) -> bool:
        return not self.problem

    # -- starting

    def claim(self, cluster: str, server: int) -> None:
        """Lock the directory and check that it is this server's, or make it so.

        Raises Failure CONFIG for someone else's; a failing disk only becomes unhealthy.
        """
        try:
            self._env.disk.make_directory(self.path)
            self._lock()
            self._check_identity(cluster, server)
            self._env.disk.make_directory(f"{self.path}/replicas")
            self.quarantine.load()
            self.measure()
        except OSError as error:
            self._condemn(error)

    def _lock(self) -> None:
        try:
            self._env.disk.lock(f"{self.path}/lock")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            text = f"data directory {self.path} is in use by another process"
            raise Failure(Code.CONFIG, text) from None

    def _check_identity(self, cluster: str, server: int) -> None:
        path = f"{self.path}/identity.json"
        if self._env.disk.exists(path):
            _check_identity(self._env.disk.read_file(path), self.path, cluster, server)
            return
        strangers = [n for n in self._env.disk.list_directory(self.path) if n not in _OWN_NAMES]
        if strangers:
            text = f"data directory {self.path} holds {strangers[0]!r} but no identity.json"
            raise Failure(Code.CONFIG, f"{text}: not a chunkserver's, give an empty directory")
        identity = {
            "magic": IDENTITY_MAGIC,
            "format": IDENTITY_FORMAT,
            "cluster": cluster,
            "server": server,
            "directory": self._env.random.token(16).hex(),
        }
        self._env.disk.write_file(path, json.dumps(identity, indent=1).encode() + b"\n")

    def scan(self) -> list[Header]:
        """The header of every replica here, its length settled; damaged files are set aside."""
        found: list[Header] = []
        try:
            found.extend(self._scan())
        except OSError as error:
            self._condemn(error)
        return found

    def _scan(self) -> Iterator[Header]:
        for name in self._env.disk.list_directory(f"{self.path}/replicas"):
            directory = f"{self.path}/replicas/{name}"
            self._made[directory] = None
            for entry in self._env.disk.list_directory(directory):
                found = self._scan_file(f"{directory}/{entry}", entry)
                if found is not None:
                    yield found

    def _scan_file(self, path: str, name: str) -> Header | None:
        try:
            handle = int(name, 16)
            file = self._env.disk.open(path)
        except (ValueError, OSError) as error:
            log.error("%s: %s is no replica: %s", self._env.name, path, error)
            return None
        try:
            headers = headers_on_disk(file)
            size = file.size()
        except OSError as error:
            log.error("%s: %s cannot be read: %s", self._env.name, path, error)
            self.unreadable.append(handle)
            self.count_read_errors(1)
            return None
        finally:
            file.close()
        if headers and headers[0][0].handle == handle:
            header = headers[0][0]
            state = layout.state_after_stop(header, self._boot)
            return replace(header, length_bytes=layout.settled_length(header, size), state=state)
        if size > layout.HEADER_BYTES:  # else: killed while it was being made
            self.quarantine.add_replica(path, handle, "no valid header")
            self.unreadable.append(handle)
        return None

    # -- replicas

    def replica_path(self, handle: int) -> str:
        return f"{self._directory_of(handle)}/{handle:016x}"

    def _directory_of(self, handle: int) -> str:
        return f"{self.path}/replicas/{handle >> _HANDLES_PER_DIRECTORY_BITS:x}"

    def make_directory_for(self, handle: int) -> None:
        """Have the directory that the replica's file goes into."""
        directory = self._directory_of(handle)
        if directory not in self._made:
            self._env.disk.make_directory(directory)
            self._made[directory] = None

    def create(self, handle: int, version: int, generation: int, state: ReplicaState) -> Replica:
        """Make a replica, without data; that there is one is durable. What stands in its way is set
        aside.

        After a power loss a missing replica is then a loss, and one that is there and has lost its
        data says so: what was never synced may be old, but must not be an error.
        """
        path = self.replica_path(handle)
        file = self._env.disk.open(path, write=True, create=True)
        if file.size() > layout.HEADER_BYTES:
            file.close()
            self.set_aside(handle, "in the way of a new replica")
            file = self._env.disk.open(path, write=True, create=True)
        self._synced.pop(self._directory_of(handle), None)
        about, boot = self._about(path), self._boot
        replica = Replica.create(file, handle, version, generation, about, boot=boot, state=state)
        try:
            replica.write_header(durable=True)
            self.sync_entry(handle)
        except OSError:
            file.close()
            self._env.disk.unlink(path)
            raise
        return replica

    def open(self, handle: int, *, settled: bool) -> Replica:
        """Open a replica and settle it unless it is. Raises OSError, or Failure.

        CORRUPT: this is no replica. DISK: the disk cannot read its header or table.
        """
        path = self.replica_path(handle)
        file = self._env.disk.open(path, write=self.writable)
        try:
            about, writable = self._about(path), self.writable
            return Replica.open(
                file, handle, about, writable=writable, settled=settled, boot=self._boot
            )
        except OSError as error:
            _, bad = sectors.read_around(file, memoryview(bytearray(DATA_OFFSET)), 0)
            file.close()
            if bad and error.errno == errno.EIO:
                text = f"{self._about(path)}: the disk cannot read its header"
                raise Failure(Code.DISK, text, errno=errno.EIO) from None
            raise
        except BaseException:
            file.close()
            raise

    def remove(self, handle: int) -> None:
        """Delete the replica's file, as the master ordered."""
        self._env.disk.unlink(self.replica_path(handle))

    def exists(self, handle: int) -> bool:
        """Whether the replica's file is there."""
        return self._env.disk.exists(self.replica_path(handle))

    def set_aside(self, handle: int, why: str) -> None:
        """Move a file that cannot be a replica into the quarantine."""
        self.quarantine.add_replica(self.replica_path(handle), handle, why)

    def quarantine_block(self, handle: int, block: int, data: bytes, why: str = "") -> None:
        """Keep the bytes of a damaged block (`Replica.damaged_bytes`) before others replace them.

        Durable when this returns. Raises OSError.
        """
        self.quarantine.add_block(handle, block, data, why or "did not match its checksum")

    def open_apart(self, handle: int) -> File:
        """The replica's file for reading, beside whoever uses it. Raises OSError."""
        return self._env.disk.open(self.replica_path(handle))

    def sync_entry(self, handle: int) -> None:
        """Make the name of the replica's file durable; once per new name in a directory."""
        directory = self._directory_of(handle)
        if directory not in self._synced:
            self._synced[directory] = None
            try:
                self._env.disk.sync_directory(directory)
            except OSError:
                self._synced.pop(directory, None)
                raise

    def _about(self, path: str) -> str:
        return f"{self._address} {path}"

    # -- space and health

    @property
    def free_bytes(self) -> int:
        """What new data may take, as far as known: the reserve is not counted."""
        free = self._space.free_bytes - self._written_bytes - self._limits.reserve_bytes
        return max(0, free)

    def measure(self) -> None:
        """Ask the file system how full it is."""
        self._space = self._env.disk.space(self.path)
        self._written_bytes = 0

    def take(self, length_bytes: int) -> None:
        """Account for new data. Raises OSError ENOSPC when it would eat into the reserve."""
        if self.free_bytes < length_bytes:
            self.measure()
        if self.free_bytes < length_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self._written_bytes += length_bytes

    def must_be_writable(self) -> None:
        """Raises Failure DISK EROFS for a disk that went read-only."""
        if self.problem:
            text = f"{self._about(self.path)} is read-only: {self.problem}"
            raise Failure(Code.DISK, text, errno=errno.EROFS, detail=self._address)

    def failure(self, error: OSError) -> Failure:
        """The Failure that answers for an OSError of this disk, whose health it may change."""
        code = error.errno or errno.EIO
        if code in _UNHEALTHY:
            self._condemn(error)
        if code == errno.EDQUOT:
            code = errno.ENOSPC
        if code not in (errno.ENOSPC, errno.EROFS):
            code = errno.EIO
        text = f"{self._about(self.path)}: {error.strerror or error}"
        return Failure(Code.DISK, text, errno=code, detail=self._address)

    def count_read_errors(self, count: int) -> None:
        """So many more blocks could not be read; with too many, the disk has failed."""
        self.read_errors += count
        if self.read_errors >= self._limits.read_errors_max:
            text = f"{self.read_errors} blocks cannot be read"
            self._condemn(OSError(errno.EIO, text, self.path))

    def _condemn(self, error: OSError) -> None:
        if not self.problem:
            self.problem = error.strerror or str(error)
            log.error("%s: disk %s goes read-only: %s", self._env.name, self.path, error)

    def report(self) -> DiskReport:
        """What the master is told; `measure` first for current figures."""
        free = 0 if self.problem else self.free_bytes
        return DiskReport(
            self.path,
            self._space.total_bytes,
            free,
            self.replicas,
            not self.problem,
            self.problem,
            quarantined_files=self.quarantine.blocks + self.quarantine.replicas,
            scrubbed_ns=self.scrubbed_ns,
            scrub_fraction=self.scrub_fraction,
        )


_OWN_NAMES = ("lock", "lost+found", "identity.json.tmp")


def _check_identity(content: bytes, path: str, cluster: str, server: int) -> None:
    try:
        identity = json.loads(content)
        magic, form = identity["magic"], identity["format"]
        owner = (identity["cluster"], identity["server"])
    except (ValueError, KeyError, TypeError):
        raise Failure(Code.CONFIG, f"{path}/identity.json cannot be read") from None
    if magic != IDENTITY_MAGIC:
        raise Failure(Code.CONFIG, f"{path} is not a chunkserver's data directory but {magic!r}")
    if form != IDENTITY_FORMAT:
        text = f"{path} has format {form}, this program knows {IDENTITY_FORMAT}"
        raise Failure(Code.CONFIG, text)
    if owner != (cluster, server):
        text = f"data directory {path} belongs to chunkserver {owner[1]} of cluster {owner[0]!r}"
        raise Failure(Code.CONFIG, f"{text}, this is chunkserver {server} of cluster {cluster!r}")
