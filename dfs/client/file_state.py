"""Everything that all handles of one inode share on this client.

Owns the file's size as this client sees it and the knowledge of its data version; joins the write
side (`WriteBack`), the read side (`FileReader`) and the chunk locations.

Versions. The master raises `data_version` by one with each commit of ours and each change of
others. As long as only our own commits have happened, master's version is the one we knew plus
their number; anything else means that the file has changed elsewhere, and what is cached goes.

What others wrote and closed is on its replicas, but perhaps on none of their disks. fsync promises
all of the file's data, so when the file has changed by more than our commits since it was last
known to be durable (`History.others_synced`), the next fsync covers every chunk of it.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from dfs.client.chunk_map import ChunkLocations
from dfs.client.file_reader import FileReader
from dfs.client.read_ahead import ReadAhead
from dfs.client.services import Services
from dfs.client.unsynced import Unsynced
from dfs.client.write_back import WriteBack
from dfs.client.write_errors import WriteErrors
from dfs.config import ClientLimits
from dfs.errors import Code, Failure, os_failure
from dfs.layout import CHUNK_BYTES, FILE_MAX_BYTES
from dfs.messages.common import Attributes, Credentials
from dfs.messages.operations import SetAttributes
from dfs.runtime.network import Buffer


@dataclass(slots=True)
class History:
    """What is remembered of an inode after its last handle is closed."""

    version: int | None = None  # of its data; None: not known
    others_synced: bool = False  # whether what others wrote up to that version is durable
    unsynced: Unsynced = field(default_factory=Unsynced)
    errors: WriteErrors = field(default_factory=WriteErrors)


class FileState:
    """One inode open here. `on_released` is called when its last handle is gone and all written."""

    def __init__(
        self,
        services: Services,
        attributes: Attributes,
        history: History,
        on_released: Callable[[FileState], None],
        *,
        created: bool = False,
    ) -> None:
        self._services = services
        self._on_released = on_released
        self.inode = attributes.inode
        self.handles = 0
        self._history = history
        self.lost: Failure | None = None
        self.version: int | None = attributes.data_version  # None: not known
        self._others_changes = attributes.data_version  # how many, apart from our own commits
        self._others_synced = history.others_synced or not attributes.size_bytes
        self._size_bytes = attributes.size_bytes  # at the master, as last heard
        self._locations = ChunkLocations(services, self.inode, attributes.size_bytes)
        self._writes = WriteBack(
            services, self.inode, self._locations, history.unsynced, history.errors
        )
        self._reader = FileReader(services, self.inode, self._locations, self._writes.overlay)
        self._commits_seen = 0
        # The number of write errors at which it was last made sure that the chunks hold nothing
        # beyond the file's end but what was written here; -1 when it was not.
        self._tail_clean_at = self.errors.count if created else -1

    @property
    def limits(self) -> ClientLimits:
        return self._services.limits

    @property
    def errors(self) -> WriteErrors:
        """The write errors there have been."""
        return self._history.errors

    def history(self) -> History:
        """What is to be remembered once the file is closed."""
        self._history.version, self._history.others_synced = self.version, self._others_synced
        return self._history

    @property
    def size_bytes(self) -> int:
        """The file's size as a reader here sees it: commits made behind our back count, too."""
        return max(self._size_bytes, self._locations.committed_bytes, self._writes.local_end)

    def must_not_be_lost(self) -> None:
        """Raise ESTALE when the session under which the file was opened is gone."""
        if self.lost is not None:
            raise Failure(self.lost.code, self.lost.message, errno=self.lost.errno)

    # -- reading and writing

    async def read(self, ahead: ReadAhead, offset: int, length_bytes: int) -> bytes | memoryview:
        """See `OpenFile.read`."""
        stop = min(offset + length_bytes, self.size_bytes)
        if stop <= offset:
            return b""
        data = await self._reader.read(ahead, offset, stop, self.size_bytes)
        self._services.meter.read_bytes += len(data)
        return data if isinstance(data, bytes | memoryview) else memoryview(data)

    async def write(self, offset: int, data: Buffer, caller: Credentials) -> None:
        """See `OpenFile.write`."""
        if offset + len(data) > FILE_MAX_BYTES:
            raise os_failure(errno.EFBIG, f"inode {self.inode}")
        if len(data) and offset > self.size_bytes and not self._tail_is_clean:
            await self._grow(offset, caller)
        for slot, start, stop in self._services.grid.pieces(offset, offset + len(data)):
            whole = stop - start == len(data)
            piece = data if whole else memoryview(data)[start - offset : stop - offset]
            await self._writes.put(slot, start, piece, caller)
            self._reader.written(slot, start, stop)
        self._services.meter.written_bytes += len(data)

    async def flush(self) -> None:
        """All that was written is on its replicas and committed, or counted as an error."""
        await self._writes.flush()
        self._note_commits()

    async def sync(self) -> None:
        """As `flush`, and durable, what others have written as well."""
        errors, others_changes = self.errors.count, self._others_changes
        await self._writes.sync(0 if self._others_synced else self._chunks_to_sync())
        self._note_commits()
        if errors == self.errors.count and others_changes == self._others_changes:
            self._others_synced = True

    async def sync_own(self) -> None:
        """As `sync`, but only what was written here."""
        await self._writes.sync()
        self._note_commits()

    def _chunks_to_sync(self) -> int:
        chunks = -(-self._size_bytes // CHUNK_BYTES)
        return min(chunks, self.limits.sync_chunks)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to be written."""
        return self._writes.is_clean

    def send_all(self) -> None:
        """Let written data go out now."""
        self._writes.send_all()

    async def set_attributes(self, operation: SetAttributes) -> Attributes:
        """Carry out a change of attributes between this client's writes, none of them half done.

        Even a mere chmod waits for the writes before it: their commit would undo what it sets
        (times, setuid).
        """
        await self._writes.pause()
        try:
            if operation.size_bytes is not None:
                return await self._set_size(operation)
            answer = await self._services.session.perform(operation)
            assert isinstance(answer, Attributes)
            return answer
        finally:
            self._writes.resume()

    async def _set_size(self, operation: SetAttributes) -> Attributes:
        old_end = self.size_bytes
        operation = dataclasses.replace(operation, keep_tail=self._tail_is_clean)
        answer = await self._services.session.perform(operation)
        assert isinstance(answer, Attributes)
        self._truncated(answer)
        if answer.size_bytes < old_end:
            self._tail_clean_at = self.errors.count
        if answer.size_bytes // CHUNK_BYTES > old_end // CHUNK_BYTES:
            await self._writes.carry_out_cut(old_end)
        await self._writes.carry_out_cut(answer.size_bytes)
        return answer

    @property
    def _tail_is_clean(self) -> bool:
        return self._tail_clean_at == self.errors.count

    async def _grow(self, offset: int, caller: Credentials) -> None:
        """Before a write that leaves a gap: what lies in it must not come to light.

        A client that died may have written there and not committed it, and a write of ours that
        failed may have reached a replica. The master has that cut off as the file grows. Once is
        enough: from then on what is there is ours.
        """
        operation = SetAttributes(
            self.inode, caller, size_bytes=offset, through_handle=True, grow_only=True
        )
        answer = await self.set_attributes(operation)
        if answer.size_bytes == offset:
            self._tail_clean_at = self.errors.count

    def _truncated(self, answer: Attributes) -> None:
        self._note_changes(answer.data_version - (answer.size_bytes != self.size_bytes))
        self._others_changes = answer.data_version - self._writes.own_commits
        self._size_bytes, self.version = answer.size_bytes, answer.data_version
        self._commits_seen = self._writes.own_commits
        self._writes.truncated(answer.size_bytes)
        self._reader.forget()

    # -- what the master says of the file

    def take(self, attributes: Attributes, asked_at: int) -> bool:
        """Learn from the master's answer to a question asked then; whether the data is unchanged.

        While a commit of ours is on its way it cannot be told whose change a new version is.
        """
        self._note_commits()
        unchanged = self.version == attributes.data_version
        if not self._writes.is_clean or self._writes.changed_after(asked_at):
            if not unchanged:
                self.version = None
                self._forget()
            self._size_bytes = max(self._size_bytes, attributes.size_bytes)
            return unchanged
        if not unchanged:
            self._forget()
        self._note_changes(attributes.data_version)
        self.version, self._size_bytes = attributes.data_version, attributes.size_bytes
        self._locations.committed_bytes = attributes.size_bytes
        return unchanged

    def merged(self, attributes: Attributes, asked_at: int) -> Attributes:
        """The attributes with the writes that the master may not have known of."""
        end = self._writes.visible_end(asked_at)
        if not end:
            return attributes
        return dataclasses.replace(
            attributes,
            size_bytes=max(attributes.size_bytes, end),
            mtime_ns=self._writes.mtime_ns,
            ctime_ns=max(attributes.ctime_ns, self._writes.mtime_ns),
        )

    def _note_changes(self, version: int) -> None:
        """The file has that version, all of our commits included."""
        others_changes = version - self._writes.own_commits
        if others_changes != self._others_changes:
            self._others_changes, self._others_synced = others_changes, False
            self._tail_clean_at = -1

    def _forget(self) -> None:
        self._locations.forget()
        self._reader.forget()

    def _note_commits(self) -> None:
        """Our own commits raised the version; the size is what they made it."""
        new = self._writes.own_commits - self._commits_seen
        self._commits_seen += new
        if new and self.version is not None:
            self.version += new
        self._size_bytes = max(self._size_bytes, self._locations.committed_bytes)

    # -- the end

    def release(self) -> None:
        """One handle less. Written data left behind by a cancelled close still goes out."""
        self.handles -= 1
        if self.lost is not None:
            return
        if not self.handles and not self._writes.is_clean:
            self._services.nursery.start_soon(self._finish)
        else:
            self._let_go()

    async def _finish(self) -> None:
        await self.flush()
        self._let_go()

    def _let_go(self) -> None:
        if self.lost is not None:
            return
        if not self.handles:
            self._on_released(self)
        self._services.session.close_inode(self.inode)

    def lose(self) -> None:
        """The session has expired: nothing can be written any more, and handles are stale."""
        text = f"inode {self.inode}: the session has expired, the file must be opened again"
        self.lost = Failure(Code.NO_SESSION, text, errno=errno.ESTALE)
        self._reader.forget()
        self._writes.abandon(self.lost)
