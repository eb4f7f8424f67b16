"""The command line: `celeriac [global options] COMMAND …`, one module per command.

`main` is called by `python -m celeriac`, the installed script, `app.start()` and `app.worker_main()`. It turns every
outcome into an exit code: 0 is success, 1 a failure, 2 a wrong use. Invariant: what goes wrong is one clear line on
standard error, never a traceback of ours and never a password; errors inside the user's own modules show theirs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from celeriac.cli.group import celeriac
from celeriac.cli.problems import one_line
from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, app: Celeriac | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: Arguments without the program's name; by default those of this process.
        app: The app that commands use unless `-A` names another.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    try:
        code = celeriac.main(arguments, prog_name="celeriac", standalone_mode=False, obj=app)
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 1
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except CeleriacError as exc:
        click.echo(f"Error: {one_line(exc)}", err=True)
        return 1
    except BrokenPipeError:  # `celeriac dead list | head`
        sys.stdout = None  # or Python complains once more at its end
        return 1
    return code if isinstance(code, int) else 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    click.echo(f"Warning: {one_line(message)}", err=True)
