"""The master: a Raft-replicated keeper of the namespace, the chunk map and the sessions.

`raft` agrees on a log of commands, `state` is the deterministic machine that applies them to
`store`, and the modules beside them are the leader's duties: answering clients (`clients`),
looking after chunkservers (`chunkservers`, `placement`), sessions and garbage (`sessions`,
`janitor`), and operators (`operators`). `server` puts one master together.
"""
