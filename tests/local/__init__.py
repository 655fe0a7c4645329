"""Tests of the cluster on this machine: pure parts, then real processes and mounts."""
