"""The chunkserver: keeps replicas of chunks on its disks and links of write chains in order.

Outermost first. `server` puts a node together. `service` answers clients and other links, `chain`
decides order and versions. `control` keeps the leading master informed and takes its orders:
`settling` makes the replicas of a chunk equal from here, `fencing` lets another server do so here,
`comparison` decides what is to be sent, `fetching` makes a new copy. `scrub` reads everything in
the background (`scrub_service`, `pace`, `scrub_state`, `verify`), `damage` remembers what is to be
told of it, `quarantine` keeps what could not be used.

Below: `store` and `datadir` know where replicas are, `syncing` brings them to rest, `lane` decides
in which thread a disk is waited for. `replica` changes one, with its `headers` and its
`block_table`, `reopening` puts right what a stop left; `format` is what it looks like on disk.
"""
