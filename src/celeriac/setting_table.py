"""The one table of all settings: name, type, default, group, meaning, old names, unit.

`config` builds the settings object from it, the documentation page is made from it, and drivers and components add
their own with `register_setting` when they are imported. Invariant: `SettingTable` has the same attributes, with
types, as `TABLE` has rows (those registered later excepted), and an old name belongs to one setting.
"""

from __future__ import annotations

from typing import Any

from celeriac.errors import AlreadyRegistered
from celeriac.setting_table_backends import (
    ArangoSettings,
    AzureSettings,
    CacheSettings,
    CassandraSettings,
    CosmosSettings,
    CouchbaseSettings,
    DatabaseSettings,
    DjangoSettings,
    DynamoSettings,
    ElasticsearchSettings,
    GoogleSettings,
    MongoSettings,
    RedisSettings,
    S3Settings,
)
from celeriac.setting_table_base import Setting, collect, make_setting, setting
from celeriac.setting_table_tasks import GeneralSettings, ResultSettings, RoutingSettings, RpcSettings, TaskSettings
from celeriac.setting_table_worker import (
    BeatSettings,
    BrokerSettings,
    ControlSettings,
    EventSettings,
    LoggingSettings,
    SecuritySettings,
    WorkerSettings,
)

__all__ = ["OLD_NAMES", "TABLE", "Setting", "SettingTable", "register_setting", "setting"]


class SettingTable(
    GeneralSettings, TaskSettings, RoutingSettings, ResultSettings, RpcSettings,
    BrokerSettings, WorkerSettings, LoggingSettings, EventSettings, ControlSettings, SecuritySettings, BeatSettings,
    DatabaseSettings, CacheSettings, DjangoSettings, MongoSettings, RedisSettings, CassandraSettings, S3Settings, AzureSettings,
    GoogleSettings, ElasticsearchSettings, DynamoSettings, CouchbaseSettings, ArangoSettings, CosmosSettings,
):  # fmt: skip
    """Every setting as a typed attribute; `celeriac.config.Settings` gives them values."""


_GROUPS: dict[str, type] = {
    "General": GeneralSettings,
    "Tasks": TaskSettings,
    "Routing": RoutingSettings,
    "Results": ResultSettings,
    "Results by rpc": RpcSettings,
    "Broker": BrokerSettings,
    "Worker": WorkerSettings,
    "Logging": LoggingSettings,
    "Events": EventSettings,
    "Remote control": ControlSettings,
    "Security": SecuritySettings,
    "Beat": BeatSettings,
    "SQL databases": DatabaseSettings,
    "Cache": CacheSettings,
    "Django": DjangoSettings,
    "MongoDB": MongoSettings,
    "Redis": RedisSettings,
    "Cassandra": CassandraSettings,
    "Amazon S3": S3Settings,
    "Azure block blobs": AzureSettings,
    "Google Cloud": GoogleSettings,
    "Elasticsearch": ElasticsearchSettings,
    "DynamoDB": DynamoSettings,
    "Couchbase": CouchbaseSettings,
    "ArangoDB": ArangoSettings,
    "Cosmos DB": CosmosSettings,
}

#: Every setting, by name, in the order of the page.
TABLE: dict[str, Setting] = {}

#: Celery's old names, to the new ones.
OLD_NAMES: dict[str, str] = {}


def _add(row: Setting) -> None:
    TABLE[row.name] = row
    OLD_NAMES.update(dict.fromkeys(row.old, row.name))


def register_setting(
    name: str, annotation: Any, default: Any, meaning: str, *, group: str = "Extensions", **details: Any
) -> None:
    """Add a setting of a driver or component; called where that is imported. The same may be added twice.

    Args:
        name: Lower-case name, begun with the driver's: `mydriver_timeout`.
        annotation: Its type, as in the table: `float | None`.
        default: Value when nothing is configured.
        meaning: One line for people.
        group: Section of the settings page.
        details: Further attributes of `Setting`: `unit`, `low`, `above`, `high`, `old`, `aliases`, `fallback`.

    Raises:
        AlreadyRegistered: There is another setting of this name.

    Example:
        >>> register_setting("mydriver_timeout", float | None, None, "Longest wait for an answer.", unit="s", above=0)
    """
    row = make_setting(name, annotation, default, meaning=meaning, group=group, **details)
    if not name.isidentifier() or name != name.lower() or name.startswith("_"):
        raise ValueError(f"a setting's name is a lower-case identifier, not {name!r}")
    if name in TABLE and TABLE[name] != row:
        raise AlreadyRegistered(f"there is a setting {name!r} already: {TABLE[name].meaning}")
    _add(row)


for _group, _class in _GROUPS.items():
    for _row in collect(_class, _group).values():
        _add(_row)
