"""Tests of the command line: pure parts here and now, the verbs on a real cluster of processes."""
