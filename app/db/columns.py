"""What the tables are made of: columns that mean the same on every database, and their base."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Dialect, MetaData, String, Table, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import DateTime, TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database: SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- signature of SQLAlchemy
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone must not reach the database")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- signature of SQLAlchemy
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def storable(text: str) -> str:
    """The text as every database can hold it: PostgreSQL takes neither NUL nor half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


class Words(TypeDecorator[str]):
    """Text that every database can hold."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- signature of SQLAlchemy
        return storable(value) if value is not None else None


class Prose(Words):
    """Words of any length."""

    impl = Text
    cache_ok = True


class Base(DeclarativeBase):
    """Names every constraint, so that migrations on both databases can find it again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON(), str: Words(255)}  # noqa: RUF012 -- SQLAlchemy reads it once


def table(model: type[Base]) -> Table:
    """The table of a model: a statement on it costs a fraction of one on the model, which also keeps objects."""
    found = model.__table__
    assert isinstance(found, Table), "all models here are tables, not queries"
    return found
