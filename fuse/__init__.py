"""The mount: a cluster as an ordinary directory, through pyfuse3.

`command` is what a user types, `mounting` the life of one mount, `operations` what the kernel asks,
`waiter` how its requests are fetched, `invalidation` how it is told to forget. What the kernel does
without asking us is in LIMITS.md. Everything here stands on `dfs.client`, seen through `backend`.
"""
