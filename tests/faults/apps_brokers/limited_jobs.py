"""The app of workers that have the tasks with limits besides the others, for brokers that have a place for these limits."""

from __future__ import annotations

from tests.faults.apps_brokers.jobs import app
from tests.faults.apps_brokers.limits import define

__all__ = ["app"]

define(app)
