"""Reading from chunks: any replica may answer, every byte is verified (C5).

A replica that fails, stays silent, or answers what does not match its checksums is passed over for
the next. Zeros stand only for holes: chunks never written, and what lies beyond a replica's end or
a pending cut. When no replica has good data: EIO.
"""

from __future__ import annotations

import errno
import logging

from dfs.checksums import verify
from dfs.client.chunk_map import ChunkLocations
from dfs.client.services import Services
from dfs.errors import Code, Failure
from dfs.messages.chunks import CheckBlocks, ChunkData, ReadChunk
from dfs.messages.metadata import ChunkLocation, Replica
from dfs.runtime.network import Buffer

log = logging.getLogger(__name__)

_LASTING = (Code.CORRUPT, Code.DISK, Code.NO_REPLICA)  # what waiting does not mend


class ChunkReader:
    """Reads one file's chunks."""

    def __init__(self, services: Services, locations: ChunkLocations) -> None:
        self._services = services
        self._locations = locations

    async def read(self, index: int, offset: int, length_bytes: int) -> Buffer:
        """Exactly that range of a chunk, which must lie within the file. Raises Failure (EIO)."""
        give_up_at, backoff = self._services.give_up_at(), self._services.backoff()
        rounds_of_lasting = 0
        while True:
            location = await self._locations.for_read(index)
            if location is None or self._locations.is_fresh(location):
                return bytes(length_bytes)
            readable = length_bytes
            if location.cut_bytes is not None:
                readable = max(0, min(length_bytes, location.cut_bytes - offset))
            if not readable:
                return bytes(length_bytes)
            answer = await self._from_any(location, offset, readable, length_bytes)
            if not isinstance(answer, Failure):
                return answer
            rounds_of_lasting += answer.code in _LASTING
            if rounds_of_lasting > 1 or self._services.env.clock.monotonic() >= give_up_at:
                raise self._unreadable(location, offset, length_bytes, answer)
            if not await self._locations.refetch(location):
                await backoff.wait()

    async def _from_any(
        self, location: ChunkLocation, offset: int, readable: int, length_bytes: int
    ) -> Buffer | Failure:
        """The bytes from the first replica that has them, or the failure that gives most hope."""
        salt = self._locations.inode + location.index
        replicas = self._services.servers.order(location.replicas, salt)
        text = f"no replica of chunk {location.handle:x} is reachable"
        failures: list[Failure] = []
        for i, replica in enumerate(replicas):
            try:
                last = i == len(replicas) - 1
                return await self._from(replica, location, offset, readable, length_bytes, last)
            except Failure as failure:
                self._note(location, replica, failure)
                failures.append(failure)
        hopeful = [f for f in failures if f.code not in _LASTING]
        if len(replicas) < len(location.replicas) and not hopeful:
            return Failure(Code.UNAVAILABLE, text)
        return (hopeful or failures)[0]

    async def _from(
        self,
        replica: Replica,
        location: ChunkLocation,
        offset: int,
        readable: int,
        length_bytes: int,
        last: bool,
    ) -> Buffer:
        services, limits = self._services, self._services.limits
        buffer = memoryview(bytearray(length_bytes))
        message = ReadChunk(location.handle, location.version, offset, readable)
        silence_s = limits.data_timeout_s if last else limits.read_timeout_s
        last_read = services.servers.last_read
        with services.patience.watch(replica.server, silence_s, last_read, replica.address):
            received = await services.pool.call(
                replica.address,
                message,
                timeout_s=limits.slow_timeout_s,
                into=buffer[:readable],
            )
        data: ChunkData = received.message
        about = f"chunk {location.handle:x} from {replica.address}"
        try:
            verify(received.payload, offset, data.checksums, about)
        except Failure:
            await self._complain(replica, location, offset, readable)
            raise
        services.servers.gave_data(replica.server)
        return buffer.toreadonly()

    async def _complain(
        self, replica: Replica, location: ChunkLocation, offset: int, length_bytes: int
    ) -> None:
        """Tell a server that took its blocks for good, so that it has them mended."""
        message = CheckBlocks(location.handle, location.version, offset, length_bytes)
        try:
            connection = await self._services.pool.get(replica.address)
        except Failure as error:
            name = self._services.env.name
            log.info("%s: %s not told of damage: %s", name, replica.address, error.message)
            return
        connection.notify(message)

    def _note(self, location: ChunkLocation, replica: Replica, failure: Failure) -> None:
        self._services.meter.failed_reads += 1
        self._services.meter.checksum_mismatches += failure.code is Code.CORRUPT
        if failure.code not in (Code.STALE_VERSION, Code.OVERLOADED):
            self._services.servers.failed(replica.server)
        log.warning(
            "%s: inode %d chunk %d: replica at %s not read: %s",
            self._services.env.name,
            self._locations.inode,
            location.index,
            replica.address,
            failure.message,
            extra={
                "inode": self._locations.inode,
                "chunk": f"{location.handle:x}",
                "server": replica.server,
                "code": failure.code.name,
            },
        )

    def _unreadable(
        self, location: ChunkLocation, offset: int, length_bytes: int, last: Failure
    ) -> Failure:
        text = (
            f"inode {self._locations.inode}: chunk {location.index} ({location.handle:x}) is"
            f" unreadable at [{offset}, {offset + length_bytes}): {last.message}"
        )
        extra = {"inode": self._locations.inode, "chunk": f"{location.handle:x}"}
        log.error("%s: %s", self._services.env.name, text, extra=extra)
        return Failure(last.code, text, errno=errno.EIO)
