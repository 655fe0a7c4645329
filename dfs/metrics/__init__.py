"""What a node tells about itself: metrics for Prometheus, health and readiness over HTTP.

One `Monitor` per node, handed what it shows; nothing is global, since a simulated cluster has many
nodes in one process. Counting costs next to nothing where it is hot: code counts into the plain
numbers of `instruments`, and only when somebody asks do collectors turn them into metrics.

Modules, from the ground up: `instruments` (plain counters and histograms), `families` (their form
for prometheus_client), `http` (requests and answers as bytes), `server` (the endpoint),
`process` (memory, files, the event loop), `rpc` (what `dfs.rpc` has counted), `monitor` (all of
it, for one node). Importing this package, or `instruments`, loads nothing else.
"""
