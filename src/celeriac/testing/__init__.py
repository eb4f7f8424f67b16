"""What tests of programs and drivers use: `transports.TransportSuite` and `results.ResultStoreSuite`.

Nothing is imported here: the suites need pytest, and the rest of the package must not.
"""
