"""Errors that pass: the task is tried again with growing pauses, then gives up. `celeriac -A retries worker -l info`.

Send one with `celeriac -A retries call retries.fetch -a '["https://example.org"]'`, and ask for it with `celeriac result`.
"""

from __future__ import annotations

import urllib.request

from celeriac import Celeriac

app = Celeriac("retries")


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=4, soft_time_limit=30)
def fetch(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return len(answer.read())
