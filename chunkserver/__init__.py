"""The chunkserver: keeps replicas of chunks on its disks and links of write chains in order.

Outermost first: `server` puts a node together, `service` answers clients and other links, `chain`
decides order and versions, `store` and `datadir` know where replicas are, `replica` changes one,
`format` is what a replica looks like on disk, `lane` decides in which thread a disk is waited for,
`control` keeps the leading master informed.
"""
