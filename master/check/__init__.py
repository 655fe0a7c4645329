"""The check of a whole cluster's state, behind `dfs fsck`: pure, apart from `audit`.

`findings` lists what can be found. `tree`, `contents`, `sessions` and `counts` go over the tables
and compare them with each other (`state.check_state` is all of them together); `replicas` compares
the chunk map with what the chunkservers list, page by page (`merging`); `paths` gives findings the
names of files. `audit` drives all of it against a live cluster, `mending` has findings mended.
"""
