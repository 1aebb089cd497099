"""A moment as people write it in a command, a history or a request."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from desireline.core.errors import SettingError

Moment = str | date | datetime | None


def parse_moment(value: object, where: str = "the moment") -> datetime:
    """A moment from a datetime, a date, ISO 8601 text or epoch seconds, in UTC unless it has a zone."""
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)
        else:
            text = str(value)
            moment = (
                datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(text))
                if text.replace(".", "", 1).isdigit() and len(text) > 8
                else datetime.fromisoformat(text)
            )
    except (ValueError, OverflowError) as error:
        raise SettingError(
            f"{where}: {value!r} is no moment; write it as 2011-09-01 or 2011-09-01T12:00:00Z."
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
