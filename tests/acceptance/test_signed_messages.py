"""A worker that runs only what is signed: a signed task runs, an unsigned and a forged one are dead letters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from celeriac import Celeriac
from celeriac.errors import ContentDisallowed, SecurityError
from tests.support.command import environment
from tests.support.files import eventually
from tests.support.signing_keys import certificate, key_pem
from tests.support.worker import WorkerProcess

APP = """
from pathlib import Path
from celeriac import Celeriac

HERE = Path(__file__).parent
url = f"sqlite:///{HERE}/celeriac.db"
app = Celeriac("signed", broker=url, backend=url, task_serializer="auth", accept_content=["auth"],
               security_key=str(HERE / "own.key"), security_certificate=str(HERE / "own.crt"),
               security_cert_store=str(HERE / "trusted"))
app.setup_security()

@app.task
def add(x, y):
    return x + y
"""


def run(folder: Path, code: str) -> str:
    """What a program of its own prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment(), check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.behaviour("B-SEC-002")
def test_only_what_is_signed_is_run(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    (tmp_path / "signed.py").write_text(APP)
    (tmp_path / "trusted").mkdir()
    for name in ("own", "false"):
        key = ed25519.Ed25519PrivateKey.generate()
        (tmp_path / f"{name}.key").write_bytes(key_pem(key))
        (tmp_path / f"{name}.crt").write_bytes(certificate(key, name))
    (tmp_path / "trusted" / "own.crt").symlink_to(tmp_path / "own.crt")
    worker = worker_process("signed", "-c", "1")
    worker.wait_ready()

    call = "from signed import add; print(add.delay(2, 3).get(timeout=30))"
    assert run(tmp_path, call) == "5"

    url = f"sqlite:///{tmp_path}/celeriac.db"
    with Celeriac("stranger", broker=url, backend=url, set_as_current=False) as stranger:
        unsigned = stranger.send_task("signed.add", (1, 1))
        with pytest.raises(ContentDisallowed, match="application/json"):
            unsigned.get(timeout=30)
        forged = run(
            tmp_path,
            "from signed import add, app, HERE; app.conf.security_key = str(HERE / 'false.key');"
            "app.conf.security_certificate = str(HERE / 'false.crt'); app.setup_security(); print(add.delay(1, 1).id)",
        )
        with pytest.raises(SecurityError, match="unknown signer"):
            stranger.AsyncResult(forged).get(timeout=30)
        stranger.control.shutdown()  # an unsigned command
        ping = "from signed import app; print(app.control.ping(timeout=20, limit=1))"
        assert "{'ok': 'pong'}" in run(tmp_path, ping)
        assert "control message dropped" in worker.output
        letters = eventually(lambda: len(found := stranger.transport.dead_letters()) == 2 and found)
        assert {letter.message.id for letter in letters} == {unsigned.id, forged}
    assert worker.stop() == 0
