"""The settings of single result stores: SQL, caches, MongoDB, Redis, Cassandra, S3, Azure, Google, and the rest.

Each class is one section of the settings page. `setting_table` collects them; nobody else reads this module. Stores
read theirs when they are opened; what the URL says comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac.setting_table_base import setting

__all__ = [
    "ArangoSettings", "AzureSettings", "CacheSettings", "CassandraSettings", "CosmosSettings", "CouchbaseSettings",
    "DatabaseSettings", "DjangoSettings", "DynamoSettings", "ElasticsearchSettings", "GoogleSettings", "MongoSettings",
    "RedisSettings", "S3Settings",
]  # fmt: skip

_IN_URL = "result_backend"


class DatabaseSettings:
    """SQL databases."""

    database_url: str | None = setting(None, "URL of the database.", old="CELERY_RESULT_DBURI", deprecated=_IN_URL)
    database_create_tables_at_setup: bool = setting(
        True, "Tables are created when the store is opened, not at first use.", old="DATABASE_CREATE_TABLES_AT_SETUP"
    )
    database_engine_options: dict[str, Any] = setting(
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "Options of the SQLAlchemy engine.",
        old="CELERY_RESULT_ENGINE_OPTIONS",
    )
    database_engine_callback: str | Callable[..., Any] | None = setting(
        None, "Called with the engine once it is made.", old="DATABASE_ENGINE_CALLBACK"
    )
    database_short_lived_sessions: bool = setting(
        False, "Each operation connects anew.", old="CELERY_RESULT_DB_SHORT_LIVED_SESSIONS"
    )
    database_table_schemas: dict[str, Any] = setting(
        {}, "Schemas of the tables `task` and `group`.", old="DATABASE_TABLE_SCHEMAS"
    )
    database_table_names: dict[str, Any] = setting(
        {},
        "Names of the tables `task` and `group`.",
        old="CELERY_RESULT_DB_TABLENAMES CELERY_RESULT_DB_TABLE_NAMES",
    )


class CacheSettings:
    """Memcached and Django's cache."""

    cache_backend: str | None = setting(
        None, "Which cache (read by Django's result store only).", old="CELERY_CACHE_BACKEND", deprecated=_IN_URL
    )
    cache_backend_options: dict[str, Any] = setting(
        {}, "Options of the memcached client.", old="CELERY_CACHE_BACKEND_OPTIONS"
    )


class DjangoSettings:
    """Django projects."""

    db_reuse_max: int | None = setting(
        None,
        "Tasks of a thread after which its database connections are closed if they are old; None and 0 are after each.",
        low=0,
        old="CELERY_DB_REUSE_MAX",
    )


class MongoSettings:
    """MongoDB."""

    mongodb_backend_settings: dict[str, Any] = setting(
        {},
        "database, taskmeta_collection, groupmeta_collection, max_pool_size, options.",
        old="CELERY_MONGODB_BACKEND_SETTINGS",
    )


class RedisSettings:
    """Redis as result store."""

    redis_backend_health_check_interval: float | None = setting(
        None, "Idle time after which a connection is checked before use.", unit="s", low=0
    )
    redis_backend_use_ssl: bool | dict[str, Any] = setting(
        False,
        "Use TLS; a dict gives ssl_cert_reqs, ssl_ca_certs, ssl_certfile, ssl_keyfile.",
        old="CELERY_REDIS_BACKEND_USE_SSL",
    )
    redis_backend_credential_provider: Any = setting(
        None, "Object or class path that gives user and password.", old="CELERY_REDIS_BACKEND_CREDENTIAL_PROVIDER"
    )
    redis_max_connections: int | None = setting(
        None, "Most connections of the pool.", old="CELERY_REDIS_MAX_CONNECTIONS", low=1
    )
    redis_socket_connect_timeout: float | None = setting(
        None, "Longest time to connect.", old="CELERY_REDIS_SOCKET_CONNECT_TIMEOUT", unit="s", above=0
    )
    redis_socket_timeout: float | None = setting(
        120.0, "Longest wait for an answer.", old="CELERY_REDIS_SOCKET_TIMEOUT", unit="s", above=0
    )
    redis_retry_on_timeout: bool = setting(False, "Ask again after that wait.", old="CELERY_REDIS_RETRY_ON_TIMEOUT")
    redis_socket_keepalive: bool = setting(
        False, "The system checks that idle connections live.", old="CELERY_REDIS_SOCKET_KEEPALIVE"
    )
    redis_client_name: str | None = setting(None, "Name that connections show in CLIENT LIST.")
    redis_db: int | None = setting(None, "Database number.", old="CELERY_REDIS_DB", low=0, deprecated=_IN_URL)
    redis_host: str | None = setting(None, "Host.", old="CELERY_REDIS_HOST", deprecated=_IN_URL)
    redis_port: int | None = setting(None, "Port.", old="CELERY_REDIS_PORT", low=1, high=65535, deprecated=_IN_URL)
    redis_username: str | None = setting(None, "User; better in the URL.", old="CELERY_REDIS_USERNAME")
    redis_password: str | None = setting(None, "Password.", old="CELERY_REDIS_PASSWORD", deprecated=_IN_URL)


class CassandraSettings:
    """Cassandra and AstraDB."""

    cassandra_servers: list[str] = setting([], "Hosts; not together with a bundle.", old="CASSANDRA_SERVERS")
    cassandra_secure_bundle_path: str | None = setting(None, "AstraDB bundle (zip); not together with hosts.")
    cassandra_bundle_path: str | None = setting(
        None,
        "Another name of the bundle's path.",
        old="CASSANDRA_BUNDLE_PATH",
        deprecated="cassandra_secure_bundle_path",
    )
    cassandra_port: int = setting(9042, "Port.", old="CASSANDRA_PORT", low=1, high=65535)
    cassandra_keyspace: str | None = setting(None, "Keyspace of results.", old="CASSANDRA_KEYSPACE")
    cassandra_table: str | None = setting(None, "Table of results.", old="CASSANDRA_TABLE CASSANDRA_COLUMN_FAMILY")
    cassandra_read_consistency: str | None = setting(
        None, "Consistency level of reads, such as LOCAL_QUORUM.", old="CASSANDRA_READ_CONSISTENCY"
    )
    cassandra_write_consistency: str | None = setting(
        None, "Consistency level of writes.", old="CASSANDRA_WRITE_CONSISTENCY"
    )
    cassandra_entry_ttl: int | None = setting(
        None, "How long rows are kept.", old="CASSANDRA_ENTRY_TTL", unit="s", low=0
    )
    cassandra_auth_provider: str | None = setting(
        None, "Name of a class of `cassandra.auth`.", old="CASSANDRA_AUTH_PROVIDER"
    )
    cassandra_auth_kwargs: dict[str, Any] = setting({}, "Its arguments.", old="CASSANDRA_AUTH_KWARGS")
    cassandra_options: dict[str, Any] = setting({}, "Further arguments of the cluster.", old="CASSANDRA_OPTIONS")


class S3Settings:
    """Amazon S3 and what is like it."""

    s3_access_key_id: str | None = setting(None, "Id of the access key.", old="S3_ACCESS_KEY_ID")
    s3_secret_access_key: str | None = setting(None, "Secret access key.", old="S3_SECRET_ACCESS_KEY")
    s3_bucket: str | None = setting(None, "Bucket.", old="S3_BUCKET")
    s3_base_path: str | None = setting(None, "First part of object names.", old="S3_BASE_PATH")
    s3_endpoint_url: str | None = setting(None, "URL of another S3 service.", old="S3_ENDPOINT_URL")
    s3_region: str | None = setting(None, "Region.", old="S3_REGION")


class AzureSettings:
    """Azure block blobs."""

    azureblockblob_container_name: str = setting("celery", "Container.", old="AZUREBLOCKBLOB_CONTAINER_NAME")
    azureblockblob_base_path: str = setting("", "First part of blob names.", old="AZUREBLOCKBLOB_BASE_PATH")
    azureblockblob_retry_initial_backoff_sec: int = setting(
        2, "First pause before another attempt.", old="AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC", unit="s", low=0
    )
    azureblockblob_retry_increment_base: int = setting(
        2, "Base of the growth of pauses.", old="AZUREBLOCKBLOB_RETRY_INCREMENT_BASE", low=0
    )
    azureblockblob_retry_max_attempts: int = setting(
        3, "Attempts of one operation.", old="AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS", low=0
    )
    azureblockblob_connection_timeout: int = setting(
        20, "Longest time to connect.", old="AZUREBLOCKBLOB_CONNECTION_TIMEOUT", unit="s", low=1
    )
    azureblockblob_read_timeout: int = setting(
        120, "Longest wait for an answer.", old="AZUREBLOCKBLOB_READ_TIMEOUT", unit="s", low=1
    )


class GoogleSettings:
    """Google Cloud Storage and Firestore."""

    gcs_bucket: str | None = setting(None, "Bucket.", old="GCS_BUCKET")
    gcs_project: str | None = setting(None, "Project.", old="GCS_PROJECT")
    gcs_base_path: str = setting("", "First part of blob names.", old="GCS_BASE_PATH")
    gcs_ttl: float = setting(0.0, "How long blobs are kept; 0 is for ever.", old="GCS_TTL", unit="s", low=0)
    gcs_threadpool_maxsize: int = setting(10, "Threads, each with a connection.", low=1)
    firestore_project: str | None = setting(None, "Project of the chord counters.", fallback="gcs_project")


class ElasticsearchSettings:
    """Elasticsearch."""

    elasticsearch_retry_on_timeout: bool = setting(
        False, "Ask another node after a timeout.", old="CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT"
    )
    elasticsearch_max_retries: int = setting(
        3, "Attempts of one operation.", old="CELERY_ELASTICSEARCH_MAX_RETRIES", low=0
    )
    elasticsearch_timeout: float = setting(
        10.0, "Longest wait for an answer.", old="CELERY_ELASTICSEARCH_TIMEOUT", unit="s", above=0
    )
    elasticsearch_save_meta_as_text: bool = setting(
        True, "Results are stored as text, not as JSON.", old="CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT"
    )


class DynamoSettings:
    """DynamoDB."""

    dynamodb_endpoint_url: str | None = setting(None, "URL of another endpoint, such as one for tests.")


class CouchbaseSettings:
    """Couchbase."""

    couchbase_backend_settings: dict[str, Any] = setting(
        {}, "host, port, bucket, username, password.", old="CELERY_COUCHBASE_BACKEND_SETTINGS"
    )


class ArangoSettings:
    """ArangoDB."""

    arangodb_backend_settings: dict[str, Any] = setting(
        {},
        "host, port, database, collection, username, password, http_protocol, verify.",
        old="CELERY_ARANGODB_BACKEND_SETTINGS",
    )


class CosmosSettings:
    """Azure Cosmos DB."""

    cosmosdbsql_database_name: str = setting("celerydb", "Database.", old="COSMOSDBSQL_DATABASE_NAME")
    cosmosdbsql_collection_name: str = setting("celerycol", "Collection.", old="COSMOSDBSQL_COLLECTION_NAME")
    cosmosdbsql_consistency_level: str = setting(
        "Session", "Consistency level, such as Strong or Eventual.", old="COSMOSDBSQL_CONSISTENCY_LEVEL"
    )
    cosmosdbsql_max_retry_attempts: int = setting(
        9, "Attempts of one operation.", old="COSMOSDBSQL_MAX_RETRY_ATTEMPTS", low=0
    )
    cosmosdbsql_max_retry_wait_time: int = setting(
        30, "Longest wait over all attempts.", old="COSMOSDBSQL_MAX_RETRY_WAIT_TIME", unit="s", low=0
    )
