"""Fixtures of tests of a worker's parts in a running worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac


@pytest.fixture
def app() -> Iterator[Celeriac]:
    """An app whose broker and results are in this process."""
    app = Celeriac("limits", broker=f"memory://{uuid.uuid4().hex}", set_as_current=False)
    app.conf.result_backend = app.conf.broker_url
    yield app
    app.close()


@pytest.fixture(params=["memory", "sqlite"])
def each_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    """The same, then one whose broker and results are in a file."""
    name = uuid.uuid4().hex
    url = f"memory://{name}" if request.param == "memory" else f"sqlite:///{tmp_path}/{name}.db"
    app = Celeriac("limits", broker=url, backend=url, set_as_current=False)
    yield app
    app.close()
