"""Asserts of the public suites show their values here, as those of test modules do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("celeriac.testing")
