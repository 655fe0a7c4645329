"""The client library, used alike by the mount and by the command line.

Owns the session with the masters (`session`, `leader`), what is cached and buffered of each open
file (`file_state`, `dirty`, `read_cache`), and the bytes' way to and from the chunkservers
(`chunk_write`, `chunk_read`). A failover of masters or chunkservers shows as a stall, never as an
error, within the bounds of `dfs.config.ClientLimits`. Leaves to its users: kernel caches, umask,
and (but for `paths`) the permission checks of lookups and opens.
"""

from dfs.client.client import Client, open_client
from dfs.client.open_file import OpenFile

__all__ = ["Client", "OpenFile", "open_client"]
