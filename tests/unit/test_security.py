"""Signed messages: Celery's layout both ways, and everything that must not be believed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from celeriac import Celeriac, codec
from celeriac.errors import ContentDisallowed, ImproperlyConfigured, SecurityError
from celeriac.security import Certificate, CertStore, FSCertStore, PrivateKey, SecureSerializer, register_auth
from celeriac.security import certificate as certificate_module
from tests.support.apps import memory_app, run_all
from tests.support.signing_keys import certificate
from tests.support.signing_keys import key_pem as pem
from tests.wire import golden

VECTORS = golden.FOLDER / "security"
VALUE = [[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
RSA_KEY = rsa.generate_private_key(65537, 2048)  # takes a moment: made once


def signer(key: Any = RSA_KEY, store: CertStore | None = None, **options: Any) -> SecureSerializer:
    cert = Certificate(certificate(key))
    return SecureSerializer(PrivateKey(pem(key)), cert, store or CertStore([cert]), **options)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """What a test registers for the process is undone."""
    yield
    codec.register("raw", codec.registry._by_name["raw"].encoder, None, "application/data", "")
    if "auth" in codec.registry.names():
        codec.unregister("auth")
    codec.enable_insecure_serializers(codec.registry.names())
    for name in ("pickle", "yaml", "msgpack"):
        codec.registry.disable(name)
    codec.register("raw", codec.registry._by_name["raw"].encoder, None, "application/data", "")


# Celery's layout


@pytest.mark.parametrize("name", ["auth_json", "auth_msgpack", "auth_pickle"])
def test_b_sec_002_what_celery_has_signed_is_read(name: str) -> None:
    recorded = golden.load("security", name)
    inner = recorded["inner_serializer"]
    store = CertStore([Certificate((VECTORS / "worker.crt").read_bytes())])
    reader = SecureSerializer(cert_store=store, digest=recorded["digest"], serializer=inner)
    message = golden.from_envelope(recorded["redis"][0]["envelope"])
    assert message.content_type == "application/data"
    args, kwargs, embed = reader.deserialize(message.body)
    assert (list(args), kwargs, embed) == ([2, 3], {}, VALUE[2])


def test_the_layout_is_that_of_celery() -> None:
    cert = Certificate((VECTORS / "worker.crt").read_bytes())
    ours = SecureSerializer(PrivateKey((VECTORS / "worker.key").read_bytes()), cert, CertStore([cert]))
    fields = base64.b64decode(ours.serialize(VALUE)).split(b"\x00\x01", 4)
    recorded = golden.from_envelope(golden.load("security", "auth_json")["redis"][0]["envelope"])
    theirs = base64.b64decode(recorded.body).split(b"\x00\x01", 4)
    assert base64.b64decode(fields[0]) == b"NL Wire Test worker.example 1234567890123456789"
    assert [fields[0], *fields[2:]] == [theirs[0], *theirs[2:]]
    assert len(fields[1]) == len(theirs[1])  # a signature has a salt: no two are the same
    assert ours.deserialize(ours.serialize(VALUE)) == VALUE


def test_b_sec_008_a_body_is_signed_and_not_encrypted() -> None:
    assert b"open secret" in base64.b64decode(signer().serialize("open secret"))


@pytest.mark.parametrize("key", [RSA_KEY, ed25519.Ed25519PrivateKey.generate()], ids=["RSA", "Ed25519"])
def test_a_value_with_separators_survives(key: Any) -> None:
    text = signer(key, serializer="text")
    assert text.deserialize(text.serialize("a\x00\x01b")) == "a\x00\x01b"


def test_ed25519_signatures_are_shorter() -> None:
    assert len(signer(ed25519.Ed25519PrivateKey.generate()).serialize(1)) * 2 < len(signer().serialize(1))


@pytest.mark.parametrize("digest", ["sha224", "sha256", "sha384", "sha512", "SHA512"])
def test_b_sec_005_the_digest_is_chosen_by_name(digest: str) -> None:
    both = signer(digest=digest)
    assert both.deserialize(both.serialize(5)) == 5
    if digest != "sha256":
        with pytest.raises(SecurityError, match="bad signature"):
            signer().deserialize(both.serialize(5))


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha265"])
def test_an_unknown_or_weak_digest_is_refused(digest: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"security_digest is one of .*sha256.*, not '{digest}'"):
        signer(digest=digest)


# what must not be believed


@pytest.mark.parametrize("key", [RSA_KEY, ed25519.Ed25519PrivateKey.generate()], ids=["RSA", "Ed25519"])
def test_a_changed_body_is_refused(key: Any) -> None:
    both = signer(key)
    changed = base64.b64decode(both.serialize({"amount": 100})).replace(b"100", b"999")
    with pytest.raises(SecurityError, match="bad signature: the message is not as 'signer 7' has signed it"):
        both.deserialize(base64.b64encode(changed))


def test_an_unknown_signer_is_refused() -> None:
    with pytest.raises(SecurityError, match="unknown signer 'signer 7'"):
        signer(store=CertStore([Certificate(certificate(RSA_KEY, "other"))])).deserialize(signer().serialize(1))


def test_a_signer_with_anothers_name_is_refused() -> None:
    false = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(SecurityError, match="bad signature"):
        signer().deserialize(signer(false).serialize(1))


@pytest.mark.parametrize("body", [b"", b"[[], {}, {}]", b"\xff\xfe", base64.b64encode(b"a\x00\x01b"), b"====", "é"])
def test_what_is_not_signed_is_refused(body: Any) -> None:
    with pytest.raises(SecurityError, match="the message is not signed"):
        signer().deserialize(body)


def test_a_trusted_signer_cannot_make_it_read_pickle() -> None:
    cunning, careful = signer(serializer="pickle"), signer()
    with pytest.raises(ContentDisallowed, match="python-serialize"):
        careful.deserialize(cunning.serialize([1]))
    assert signer(allowed=["pickle"]).deserialize(cunning.serialize([1])) == [1]


def test_an_expired_certificate_verifies_nothing() -> None:
    expired = Certificate(certificate(RSA_KEY, days=-1))
    assert expired.has_expired()
    with pytest.raises(SecurityError, match="'signer 7' has expired"):
        signer(store=CertStore([expired])).deserialize(signer().serialize(1))


def test_a_key_that_is_neither_rsa_nor_ed25519_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SecurityError, match="RSA or Ed25519"):
        PrivateKey(pem(key))
    with pytest.raises(SecurityError, match="RSA or Ed25519"):
        Certificate(certificate(key))


# keys and stores


def test_b_sec_004_an_encrypted_key_takes_its_password() -> None:
    encrypted = pem(RSA_KEY, b"s3cret")
    assert PrivateKey(encrypted, "s3cret").public_key == RSA_KEY.public_key()
    with pytest.raises(SecurityError, match="is encrypted: set security_key_password"):
        PrivateKey(encrypted)
    with pytest.raises(SecurityError, match="its password is wrong") as failure:
        PrivateKey(encrypted, "wr0ng")
    assert "wr0ng" not in str(failure.value)
    with pytest.raises(SecurityError, match="is not encrypted, but has a password"):
        PrivateKey(pem(RSA_KEY), b"s3cret")


def test_b_sec_007_a_store_is_a_folder_or_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(certificate(RSA_KEY, "a"))
    (tmp_path / "b.crt").write_bytes(certificate(RSA_KEY, "b"))
    (tmp_path / "folder").mkdir()
    assert sorted(cert.get_id() for cert in FSCertStore(str(tmp_path)).itercerts()) == ["a 7", "b 7"]
    assert [cert.get_id() for cert in FSCertStore(f"{tmp_path}/*.pem").itercerts()] == ["a 7"]
    with pytest.raises(SecurityError, match="names no file"):
        FSCertStore(f"{tmp_path}/none/*.pem")
    (tmp_path / "c.pem").write_text("no certificate")
    with pytest.raises(SecurityError, match="c.pem, named by security_cert_store: It is no X.509 certificate"):
        FSCertStore(str(tmp_path))


def test_b_sec_003_an_expired_certificate_in_the_store_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "old.pem").write_bytes(certificate(RSA_KEY, "old", days=-1))
    with pytest.raises(SecurityError, match=r"old.pem.*'old 7' has expired"):
        FSCertStore(str(tmp_path))


def test_a_new_key_needs_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pem").write_bytes(certificate(RSA_KEY, "a"))
    store = FSCertStore(str(tmp_path))
    fresh = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "b.pem").write_bytes(certificate(fresh))
    reader = SecureSerializer(cert_store=store)
    with pytest.raises(SecurityError, match="unknown signer"):  # it has just been read
        reader.deserialize(signer(fresh).serialize("new"))
    moment = time.monotonic() + certificate_module.REREAD + 1
    monkeypatch.setattr(certificate_module.time, "monotonic", lambda: moment)
    assert reader.deserialize(signer(fresh).serialize("new")) == "new"


def test_a_key_and_anothers_certificate_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(certificate(RSA_KEY))
    other = certificate(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(SecurityError, match="security_certificate is not the certificate of security_key"):
        register_auth(pem(RSA_KEY), None, other, str(tmp_path))


# apps


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "key.pem").write_bytes(pem(RSA_KEY))
    for name in ("cert.pem", "trusted/signer.pem"):
        (tmp_path / name).write_bytes(certificate(RSA_KEY))
    return {
        "security_key": f"{tmp_path}/key.pem",
        "security_certificate": f"{tmp_path}/cert.pem",
        "security_cert_store": f"{tmp_path}/trusted/*.pem",
    }


def secured(files: dict[str, str], **settings: Any) -> Celeriac:
    app = memory_app(task_serializer="auth", accept_content=["auth"], **files, **settings)
    app.setup_security()
    return app


def test_a_task_is_signed_on_its_way_and_runs(files: dict[str, str]) -> None:
    app = secured(files)
    add = app.task(lambda x, y: x + y, name="add")
    result = add.delay(2, 3)
    [outcome] = run_all(app)
    assert outcome.state == "SUCCESS"
    assert result.get(timeout=1) == 5


def test_a_message_that_is_not_signed_is_not_run(files: dict[str, str]) -> None:
    app = secured(files)
    ran: list[int] = []
    app.task(ran.append, name="run")
    stranger = Celeriac("stranger", broker=app.conf.broker_url, set_as_current=False)
    stranger.send_task("run", (1,))
    [outcome] = run_all(app)
    assert outcome.state == "FAILURE"
    assert outcome.reason.startswith("ContentDisallowed")
    assert ran == []


def test_b_sec_001_settings_that_do_not_sign_are_told(files: dict[str, str]) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"task_serializer = 'auth' and accept_content = \['auth'\]"):
        memory_app(**files).setup_security()
    with pytest.raises(ImproperlyConfigured, match=r"missing: \['security_key', 'security_cert_store'\]"):
        memory_app(
            task_serializer="auth", accept_content=["auth"], security_certificate=files["security_certificate"]
        ).setup_security()
    with pytest.raises(ImproperlyConfigured, match=r"security_key = '/no/such' can't be read: No such file"):
        secured({**files, "security_key": "/no/such"})


def test_auth_without_setup_says_what_to_call(files: dict[str, str]) -> None:
    app = memory_app(task_serializer="auth", accept_content=["auth"])
    with pytest.raises(ImproperlyConfigured, match=r"Call app.setup_security\(\)"):
        app.send_task("add", (1,))


def test_b_sec_006_other_serializers_are_disabled_for_the_process(files: dict[str, str]) -> None:
    app = memory_app(task_serializer="auth", accept_content=["auth"], **files)
    app.setup_security(allowed_serializers=["json"])
    assert codec.loads(b"[1]", "application/json") == [1]
    with pytest.raises(ContentDisallowed):
        codec.loads(b"\x91\x01", "application/x-msgpack")
    app.setup_security()
    with pytest.raises(ContentDisallowed):
        codec.loads(b"[1]", "application/json")
