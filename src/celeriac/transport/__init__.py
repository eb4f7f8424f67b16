"""Transports: one driver per kind of broker, behind the port in `base`, opened by URL with `open.open_transport`.

Nothing is imported here, so that a program loads only the driver whose URL it uses.
"""
