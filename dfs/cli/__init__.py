"""The command line: one module per verb, each with a test of the same name in tests/cli.

`main` finds the verbs without importing them, `exits` lists the exit codes, `output` is all that
is printed, `cluster` opens the cluster that the user named, `tree` walks its paths as that user,
`transfer` moves files. A verb's module parses arguments, calls these and prints.
"""
