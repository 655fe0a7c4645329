"""The real world: `RealEnv` over trio, the operating system and LMDB.

Owns the process's sockets, files, threads and clocks. Stands on `dfs.runtime`'s protocols and is
kept equal to the simulated world by one contract test suite (`tests/runtime`).
"""

from dfs.runtime.current import activate
from dfs.runtime.real.clock import RealClock
from dfs.runtime.real.disk import RealDisk
from dfs.runtime.real.env import RealEnv
from dfs.runtime.real.network import RealNetwork

__all__ = ["RealClock", "RealDisk", "RealEnv", "RealNetwork", "activate"]
