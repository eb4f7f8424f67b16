"""A chord that grows while its processes die ends once, with every part that was added, and each of them once."""

from __future__ import annotations

import pytest

from celeriac import chord
from tests.faults.apps.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_parts_that_are_added_again_after_a_death_count_once(each_rig: Rig) -> None:
    rig = each_rig
    rig.worker("-c", "2")
    part, work = rig.app.signature("grow_and_die", ("grown", 3)), rig.app.signature("work", ("sent", 0))
    result = chord([part, work], app=rig.app)(rig.app.signature("keys_of"))
    assert result.get(timeout=30) == ["grown", "sent", "grown-0", "grown-1", "grown-2"]
    rig.assert_empty()
    starts = rig.starts()
    assert (starts["grown"], starts["body"]) == (2, 1)
