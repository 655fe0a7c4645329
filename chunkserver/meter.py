"""What the data path counts; read by `chunkserver.metrics`."""

from __future__ import annotations

from dfs.metrics.instruments import TimingsByName


class StoreMeter:
    """Of one chunkserver, since its process began."""

    def __init__(self) -> None:
        self.damaged_packets = 0  # arrived with another checksum than the sender's
        self.damaged_reads = 0  # what a disk gave back was not what had been written
        self.syncs = TimingsByName()  # by data directory
        self.broken_links = 0  # of write chains
