"""dfs: what every process of the file system shares.

Owns the ground floor: runtime seams (`runtime`), RPC (`rpc`), messages (`messages`), errors, the
configuration, checksums, the client library (`client`) and the command line (`cli`).
`master`, `chunkserver` and `fuse` stand on this package; nothing here imports them.
"""

__version__ = "0.1.0"
