"""Every message of every protocol in the system, as typed dataclasses (see `dfs.rpc.codec`).

Wire ids by module: common 1-19, operations 20-59, metadata 60-109, chunks 110-139,
cluster 140-199, rpc itself 200-219. Never reuse one; append fields only at the end, with defaults.
"""
