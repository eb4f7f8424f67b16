"""Results of groups on one Redis, kept by stock Celery 5.7 and read by celeriac, and the other way round."""

from __future__ import annotations

import pytest

from tests.mixed.conftest import Fleet
from tests.mixed.test_redis_fleet import SIDES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("keeper", "reader"), SIDES)
@pytest.mark.behaviour("B-RESULT-031")
def test_a_kept_group_is_restored_across(fleet: Fleet, keeper: str, reader: str) -> None:
    fleet.worker("celeriac")
    keep = "(lambda g: [g.save(), g.id][1])(app.GroupResult('kept', [add.delay(1, n) for n in range(3)]))"
    assert fleet.client(keeper)(keep) == "kept"
    read = "(lambda g: [g.id, g.get(timeout=20), g.completed_count(), g.ready()])(app.GroupResult.restore('kept'))"
    assert fleet.client(reader)(read) == ["kept", [1, 2, 3], 3, True]
    assert fleet.client(reader)("app.GroupResult.restore('kept').delete()") is None
    assert fleet.client(keeper)("app.GroupResult.restore('kept')") is None


@pytest.mark.parametrize("side", ["celery", "celeriac"])
def test_states_are_told_to_both(fleet: Fleet, side: str) -> None:
    """[B-RESULT-007]: STARTED, then the end."""
    fleet.worker("celeriac")
    follow = (
        "(lambda seen: [nap.delay(0.5).get(timeout=20, on_message=lambda m: seen.append(m['status'])), seen][1])([])"
    )
    assert fleet.client(side)(follow) == ["STARTED", "SUCCESS"]
