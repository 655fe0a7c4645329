"""Tests of the mount: handlers without a kernel, then real mounts."""
