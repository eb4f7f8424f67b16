"""Result stores: one driver per kind, behind the port in `base`, opened by URL with `open.open_store`.

Nothing is imported here, so that a program loads only the driver whose URL it uses.
"""
