"""For Django projects: settings from Django's, tasks of its apps, connections that stay fresh, sending on commit.

`fixup` is called for every app that is made, so this module imports nothing: without DJANGO_SETTINGS_MODULE, nothing happens.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.contrib.django.project import DjangoFixup

__all__ = ["fixup"]


def fixup(app: Celeriac, env: str = "DJANGO_SETTINGS_MODULE") -> DjangoFixup | None:
    """Make this app that of a Django project, if there is one: the variable `env` names its settings.

    Without Django that is a FixupWarning.
    """
    module = os.environ.get(env)
    if not module:
        return None
    if importlib.util.find_spec("django") is None:
        errors = importlib.import_module("celeriac.errors")
        text = f"{env} names the settings {module!r} of a Django project, but Django is not installed: it is left out"
        warnings.warn(errors.FixupWarning(text), stacklevel=2)
        return None
    made: DjangoFixup = importlib.import_module("celeriac.contrib.django.project").DjangoFixup(app)
    return made
