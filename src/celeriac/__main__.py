"""`python -m celeriac` and the installed command `celeriac`.

The command line is imported when it is run and not before, so that importing this module costs nothing and an import
error in the command line can't hide behind one of its own.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line with the arguments of this process; returns its exit status."""
    from celeriac import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
