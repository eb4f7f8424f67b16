"""The app and the harness of the fault tests of network brokers."""
