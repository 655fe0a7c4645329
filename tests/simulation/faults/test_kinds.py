"""Every kind of fault can happen."""

from __future__ import annotations

from tests.simulation.faults import KINDS
from tests.simulation.profiles import PROFILES


def test_every_kind_is_of_a_family_that_a_profile_has() -> None:
    families = {family for profile in PROFILES.values() for family in profile.families}
    assert [kind.name for kind in KINDS.values() if kind.family not in families] == []


def test_every_family_of_a_profile_has_kinds() -> None:
    families = {kind.family for kind in KINDS.values()}
    for profile in PROFILES.values():
        assert [f for f in (*profile.families, *profile.focus) if f not in families] == []
