"""Test enablers: a clock, a faulty network, faulty drivers, real workers, ledgers and call counts.

Tests import them as `tests.support.<module>`. Each is itself tested in tests/unit/test_support.py.
"""
