"""A whole cluster on this machine: `dfs local up|down|status`.

Owns ROOT and everything in it (`layout`), the configuration files it writes there (`configure`),
the processes it starts (`processes`), the mounts it keeps (`mounts`) and what it remembers of
them (`state`). `up`, `down` and `report` are the verbs. Leaves the processes themselves to their
own commands, which it starts as `python -m dfs.cli.main ...`.
"""
