"""Where settings come from: modules, objects, mappings, the environment, the command line."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.config import Settings, from_cmdline, load
from celeriac.errors import CeleriacWarning, ImproperlyConfigured
from celeriac.setting_table import OLD_NAMES, TABLE


def read(source: Any = None, **options: Any) -> Settings:
    """`load` with an empty environment."""
    return load(source, **{"environ": {}, **options})


def module_of(**attributes: Any) -> types.ModuleType:
    module = types.ModuleType("celeryconfig")
    vars(module).update(attributes)
    return module


@pytest.fixture
def config_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes modules that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


# sources


def test_b_conf_004_old_names_are_accepted_with_one_warning() -> None:
    old = {"CELERY_ACKS_LATE": False, "CELERYD_CONCURRENCY": 3, "BROKER_URL": "redis://a", "S3_BUCKET": "b"}
    for source in (old, module_of(**old), type("Config", (), old)):
        with pytest.warns(FutureWarning, match="CELERYD_CONCURRENCY is now worker_concurrency") as warned:
            conf = read(source)
        assert len(warned) == 1
        assert (conf.task_acks_late, conf.worker_concurrency, conf.broker_url) == (False, 3, "redis://a")
        assert conf.s3_bucket == "b"


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_b_conf_004_each_old_name_reads_and_writes_the_new_setting(old: str, new: str) -> None:
    conf = read()
    with pytest.warns(FutureWarning, match=new):
        assert conf[old] == conf[new]
    with pytest.warns(FutureWarning, match=new):
        conf.update({old: conf[new]})
    assert set(conf.changes) <= {new}


def test_b_conf_004_an_old_name_works_as_an_attribute() -> None:
    conf = read()
    with pytest.warns(FutureWarning) as warned:
        conf.CELERY_ALWAYS_EAGER = True  # type: ignore[attr-defined]
    assert warned[0].filename == __file__
    with pytest.warns(FutureWarning) as warned:
        assert conf.CELERY_ALWAYS_EAGER is True  # type: ignore[attr-defined]
    assert warned[0].filename == __file__
    assert conf.task_always_eager is True
    assert "CELERY_ALWAYS_EAGER" in conf
    with pytest.warns(FutureWarning):
        assert conf.get("CELERY_ALWAYS_EAGER") is True


def test_b_conf_005_mixed_names_are_refused_with_the_replacements() -> None:
    mixed = {"task_serializer": "json", "CELERY_ACKS_LATE": True, "CELERYD_CONCURRENCY": 2}
    for source in (mixed, module_of(**mixed)):
        with pytest.raises(ImproperlyConfigured) as caught:
            read(source)
        assert "CELERY_ACKS_LATE to task_acks_late" in str(caught.value)
        assert "CELERYD_CONCURRENCY to worker_concurrency" in str(caught.value)


def test_b_conf_005_an_upper_case_constant_of_a_setting_that_is_set_is_no_mixture() -> None:
    conf = read(module_of(BROKER_URL="redis://a", broker_url="redis://a/1", REDIS_HOST="a"))
    assert conf.broker_url == "redis://a/1"


@pytest.mark.parametrize("namespace", ["CELERY", "CELERY_", "MYAPP"])
def test_b_conf_006_a_namespace_reads_only_names_with_its_prefix(namespace: str) -> None:
    prefix = namespace.rstrip("_")
    names = {
        f"{prefix}_TASK_SERIALIZER": "yaml", f"{prefix}_BEAT_SCHEDULER": "a:B", f"{prefix}_lower": 1,
        "DEBUG": True, "task_serializer": "msgpack", "OTHER_TASK_SERIALIZER": "msgpack",
    }  # fmt: skip
    for source in (names, module_of(**names), type("Config", (), names)()):
        conf = read(source, namespace=namespace)
        assert conf.changes == {"task_serializer": "yaml", "beat_scheduler": "a:B"}


def test_b_conf_006_a_lower_case_namespace_reads_lower_case_names() -> None:
    conf = read({"celery_task_serializer": "yaml", "CELERY_TASK_SERIALIZER": "json"}, namespace="celery")
    assert conf.task_serializer == "yaml"


def test_b_conf_006_unknown_names_with_the_prefix_are_errors_that_name_the_right_one() -> None:
    with pytest.raises(ImproperlyConfigured, match="CELERY_TASK_ACK_LATE.*'CELERY_TASK_ACKS_LATE'"):
        read({"CELERY_TASK_ACK_LATE": True}, namespace="CELERY")
    # An old name has no effect in Celery with a namespace: taking it would change what a program does.
    with pytest.raises(ImproperlyConfigured, match="CELERY_ALWAYS_EAGER.*'CELERY_TASK_ALWAYS_EAGER'"):
        read({"CELERY_ALWAYS_EAGER": True}, namespace="CELERY")
    with pytest.warns(CeleriacWarning, match="CELERY_SHARDS"):
        conf = read({"CELERY_SHARDS": 3, "CELERY_STRICT_SETTINGS": False}, namespace="CELERY")
    assert conf["shards"] == 3


def test_helpers_in_a_configuration_are_no_settings(config_module: Any) -> None:
    config_module(
        "helpful_config",
        "from __future__ import annotations\n"
        "import os\n"
        "from datetime import timedelta, timezone\n"
        "from urllib.parse import quote as include\n"
        "_private = 'x'\n"
        "BASE_DIR = '/srv'\n"
        "class Thing: pass\n"
        "environ = os.environ\n"
        "thing = Thing()\n"
        "def helper(): return 1\n"
        "def task_routes(name, *args, **kwargs): return 'q'\n"
        "task_serializer = 'yaml'\n",
    )
    with pytest.raises(ImproperlyConfigured, match=r"^include must be a list"):
        read("helpful_config")  # `include` is given a function of another name: that may be meant
    vars(sys.modules["helpful_config"])["include"] = []
    conf = read("helpful_config")
    assert set(conf.changes) == {"task_serializer", "task_routes", "include"}
    assert conf.task_routes("add") == "q"
    assert conf.timezone is None


@pytest.mark.parametrize("value", ["text", 1, 2.5, None, True, [], (), {}, {1}, b"", timedelta(1)])
def test_an_unknown_plain_value_in_a_module_is_an_error_unless_settings_are_not_strict(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"celeryconfig: 'task_ack_late' is not a setting\. Did you mean"):
        read(module_of(task_ack_late=value))
    for options in ({"strict": False}, {"changes": {"strict_settings": False}}):
        with pytest.warns(CeleriacWarning, match="task_ack_late"):
            conf = read(module_of(task_ack_late=value), **options)
        assert conf["task_ack_late"] == conf.task_ack_late == value  # type: ignore[attr-defined]
        assert "task_ack_late" in conf.changes
    with pytest.warns(CeleriacWarning, match="task_ack_late"):
        read(module_of(task_ack_late=value, strict_settings=False))


def test_settings_that_are_not_strict_keep_what_a_program_adds() -> None:
    conf = read(strict=False)
    with pytest.warns(CeleriacWarning, match="my_own"):
        conf.my_own = 1  # type: ignore[attr-defined]
    conf.my_own = 2  # type: ignore[attr-defined]
    assert conf["my_own"] == 2
    assert "my_own" in list(conf)
    assert len(conf) == len(TABLE) + 1
    del conf["my_own"]
    assert not hasattr(conf, "my_own")


def test_b_app_022_sources_of_all_kinds(config_module: Any) -> None:
    config_module(
        "kinds_config",
        "task_serializer = 'yaml'\nclass Config:\n    task_serializer = 'yaml'\n    def method(self): ...\nconfig = Config()\n",
    )
    for path in ("kinds_config", "kinds_config:Config", "kinds_config.Config", "kinds_config:config"):
        assert read(path).changes == {"task_serializer": "yaml"}
    module = sys.modules["kinds_config"]
    for source in (module, module.Config, module.config, {"task_serializer": "yaml"}):
        assert read(source).changes == {"task_serializer": "yaml"}


def test_a_class_inherits_and_an_instance_has_properties() -> None:
    class Base:
        task_serializer = "yaml"

    class Config(Base):
        def __init__(self) -> None:
            self.worker_concurrency = 2

        @property
        def result_serializer(self) -> str:
            return "yaml"

    assert read(Config()).changes == {"task_serializer": "yaml", "worker_concurrency": 2, "result_serializer": "yaml"}


def test_a_pydantic_model_is_a_source() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Config", task_serializer=(str, "yaml"), worker_concurrency=(int, 2))
    assert read(model()).changes == {"task_serializer": "yaml", "worker_concurrency": 2}


def test_b_app_025_a_missing_module_is_an_import_error_unless_silent(config_module: Any) -> None:
    config_module("broken_config", "import no_such_module_at_all\n")
    config_module("other_config", "class Config: pass\n")
    for path in ("no_such_config", "no_such.config", "no_such_config:Config", "broken_config", "other_config:Confg"):
        with pytest.raises(ImportError):
            read(path)
        assert read(path, silent=True).changes == {}
    with pytest.raises(ImportError, match="Did you mean 'Config'"):
        read("other_config:Confg")


# environment and command line


def test_b_conf_011_celerys_variables_override_settings() -> None:
    environ = {
        "CELERY_BROKER_URL": "redis://env",
        "CELERY_RESULT_BACKEND": "redis://env/1",
        "CELERY_TASK_SERIALIZER": "x",
    }
    conf = load({"broker_url": "redis://source"}, changes={"result_backend": "redis://changes"}, environ=environ)
    assert (conf.broker_url, conf.result_backend, conf.task_serializer) == ("redis://env", "redis://env/1", "json")
    conf.broker_url = "memory://"
    assert conf.broker_read_url == "memory://"
    assert load({"broker_url": "redis://source"}, environ={"CELERY_BROKER_URL": ""}).broker_url == "redis://source"


def test_b_conf_011_our_variables_go_before_celerys() -> None:
    environ = {"CELERY_BROKER_URL": "redis://celery", "CELERIAC_BROKER_URL": "redis://own"}
    assert load(environ=environ).broker_url == "redis://own"


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_RESULT_BACKEND", "redis://env")
    assert load().result_backend == "redis://env"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("task_acks_late", "no", False),
        ("task_acks_late", "TRUE", True),
        ("task_acks_late", "0", False),
        ("worker_concurrency", "4", 4),
        ("worker_concurrency", "auto", None),
        ("worker_concurrency", "none", None),
        ("worker_max_tasks_per_child", "0", None),
        ("task_lease", "2.5", 2.5),
        ("task_default_rate_limit", "10", 10.0),
        ("task_default_rate_limit", "10/m", "10/m"),
        ("result_expires", "3600", 3600.0),
        ("accept_content", "json, yaml", ["json", "yaml"]),
        ("accept_content", '["json"]', ["json"]),
        ("broker_url", "redis://a,b;redis://c", "redis://a,b;redis://c"),
        ("broker_url", '["redis://a", "redis://b"]', ["redis://a", "redis://b"]),
        ("broker_use_ssl", "true", True),
        ("broker_use_ssl", '{"cert_reqs": 0}', {"cert_reqs": 0}),
        ("broker_transport_options", '{"visibility_timeout": 60}', {"visibility_timeout": 60}),
        ("task_queues", '["a"]', ["a"]),
        ("task_routes", '{"a": "b"}', {"a": "b"}),
        ("task_routes", "proj.router", "proj.router"),
        ("task_compression", "none", None),
        ("task_compression", "gzip", "gzip"),
        ("task_default_delivery_mode", "1", 1),
        ("task_default_delivery_mode", "transient", "transient"),
        ("worker_umask", "18", 18),
    ],
)
def test_text_is_read_by_the_settings_type(name: str, text: str, value: Any) -> None:
    for got in (load(environ={f"CELERIAC_{name.upper()}": text})[name], from_cmdline([f"{name}={text}"])[name]):
        assert got == value
        assert type(got) is type(value)


def test_a_wrong_text_names_its_variable() -> None:
    with pytest.raises(
        ImproperlyConfigured, match="^environment variable CELERIAC_WORKER_CONCURRENCY: worker_conc.*'many'"
    ):
        load(environ={"CELERIAC_WORKER_CONCURRENCY": "many"})
    for name in ("TASK_LEASE", "TASK_ACKS_LATE", "TASK_PROTOCOL", "BROKER_TRANSPORT_OPTIONS", "TASK_QUEUES"):
        with pytest.raises(ImproperlyConfigured, match=name):
            load(environ={f"CELERIAC_{name}": "?"})


def test_a_nearly_right_variable_warns_and_others_do_not() -> None:
    with pytest.warns(CeleriacWarning, match="CELERIAC_TASK_ACK_LATE.*CELERIAC_TASK_ACKS_LATE"):
        load(environ={"CELERIAC_TASK_ACK_LATE": "1"})
    load(environ={"CELERIAC_SERVICE_HOST": "10.0.0.1", "CELERIAC_PORT": "tcp://x", "CELERIAC_CONFIG_MODULE": "m"})


def test_b_cli_023_settings_on_the_command_line() -> None:
    assert from_cmdline(["worker.prefetch_multiplier=10", "task_acks_late=true", "broker_heartbeat=30"]) == {
        "worker_prefetch_multiplier": 10, "task_acks_late": True, "broker_heartbeat": 30.0,
    }  # fmt: skip
    assert from_cmdline(["task.default_queue=a=b"]) == {"task_default_queue": "a=b"}
    assert from_cmdline([]) == {}
    with pytest.raises(ImproperlyConfigured, match="'worker_concurrency' is not of the form"):
        from_cmdline(["worker_concurrency"])
    with pytest.raises(ImproperlyConfigured, match=r"'worker\.concurency' is not a setting.*'worker_concurrency'"):
        from_cmdline(["worker.concurency=1"])
    with pytest.raises(ImproperlyConfigured, match="task_acks_late must be true or false"):
        from_cmdline(["task_acks_late=perhaps"])
