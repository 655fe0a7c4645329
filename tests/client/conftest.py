"""What every test of the client gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.fake_cluster import KEY


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """The cluster's key, in a file."""
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return str(path)
