"""The page about remote control names what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac import commands
from celeriac.control import Control
from celeriac.worker.control_change import COMMANDS as CHANGE
from celeriac.worker.control_inspect import COMMANDS as INSPECT
from celeriac.worker.control_revoke import COMMANDS as REVOKE

PAGE = (Path(__file__).parents[2] / "docs" / "control.md").read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["scheduled", "active", "enable_events", "heartbeat", "autoscale", "pool_restart", "terminate"]
)
def test_differences_are_about_commands_that_exist(name: str) -> None:
    assert f"`{name}`" in PAGE
    assert name in {**INSPECT, **CHANGE, **REVOKE}


def test_what_it_imports_is_there() -> None:
    assert "from celeriac.commands import control_command, inspect_command" in PAGE
    assert callable(commands.control_command) and callable(commands.inspect_command)


def test_every_command_has_help_and_a_method_for_clients() -> None:
    for name, info in {**INSPECT, **CHANGE, **REVOKE}.items():
        assert info.help, name
    for name in {**CHANGE, **REVOKE}:
        assert callable(getattr(Control, name)), name
