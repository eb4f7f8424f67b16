"""The time zone of moments that name none: the setting `timezone`, else UTC (or local time without `enable_utc`)."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured

__all__ = ["zone_of"]


def zone_of(conf: Settings) -> tzinfo:
    """The app's time zone.

    Raises:
        ImproperlyConfigured: The name is unknown.
    """
    zone = conf.timezone
    if isinstance(zone, tzinfo):
        return zone
    if zone is None:
        return UTC if conf.enable_utc else datetime.now().astimezone().tzinfo or UTC
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise ImproperlyConfigured(f"timezone {zone!r} is not a known time zone name, such as 'Europe/London'") from exc
