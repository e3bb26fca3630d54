"""Where ML Metadata keeps a profile's runs: a SQLite file in the output folder, or a MySQL (MariaDB) server.

Everything that writes or reads a run's metadata connects through here, by `Settings.metadata_connection`. A server's
password is in no setting: it comes from the environment variable METADATA_PASSWORD, or from the file that
METADATA_PASSWORD_FILE names (`components.model_report.lineage.with_password`).

Not PostgreSQL: ml-metadata 1.16 to 1.21 quotes a text with a backslash twice for it, which the server refuses, and what
configures an Evaluator has some.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.metadata_server import Server
from pipeline.settings import Settings

if TYPE_CHECKING:
    from ml_metadata import MetadataStore
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

    from components.model_report.lineage import Run

_ATTEMPTS = 5
_ATTEMPT_S = 1.0


class NotFoundError(LookupError):
    """A run, or what a run makes, is not there; the message says what is, or what makes it."""


class ServerError(ConnectionError):
    """A metadata server cannot be used; the message says why and what to look at."""


def connection(settings: Settings) -> ConnectionConfig:
    """What a run of the settings connects with, to write; with the password.

    Raises:
        ServerError: the password's file cannot be read.
    """
    from components.model_report import lineage

    if settings.metadata_connection:
        try:
            return lineage.with_password(Server.parse(settings.metadata_connection).connection())
        except OSError as error:
            variable = lineage.PASSWORD_FILE_VARIABLE
            raise ServerError(f"The file that {variable} names cannot be read: {error}") from error
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig, SqliteMetadataSourceConfig

    config = ConnectionConfig()
    config.sqlite.filename_uri = str(settings.metadata_path)
    config.sqlite.connection_mode = SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


def prepare(settings: Settings, config: ConnectionConfig) -> None:
    """Make ML Metadata's tables where there are none, and note in the profile's folder where they are.

    Also gives the pipeline a name that no other folder's has on any server: TFX looks up by name what a run may reuse
    and which model it is compared with, and others run the same profile.

    Two runs that begin on an empty database make its tables at once: the one that comes second tries again.

    Args:
        settings: of the run.
        config: from `connection`.

    Raises:
        ServerError: the server cannot be reached, or refuses.
    """
    from components.model_report import lineage

    note = settings.metadata_connection_path
    if not settings.metadata_connection:
        note.unlink(missing_ok=True)
        return
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            lineage.open_store(config)
            break
        except Exception as error:  # ML Metadata's errors have no narrower class in common
            if attempt == _ATTEMPTS:
                raise _unusable(settings, error) from error
            time.sleep(_ATTEMPT_S * attempt)
    note.write_text(f"{settings.metadata_connection}\n", encoding="utf-8")
    if not settings.pipeline_name_path.exists():
        settings.pipeline_name_path.write_text(f"{settings.pipeline_name}_{uuid.uuid4().hex[:8]}\n", encoding="utf-8")


def found(settings: Settings) -> Settings:
    """The settings with the server that the profile's last run noted, where it had one."""
    note = settings.metadata_connection_path
    return (
        dataclasses.replace(settings, metadata_connection=note.read_text(encoding="utf-8").strip())
        if note.exists()
        else settings
    )


def open_store(settings: Settings) -> MetadataStore:
    """Connect to the metadata of a profile's runs, for reading.

    Raises:
        FileNotFoundError: there is no SQLite file: the profile has not been run.
        ServerError: the server cannot be reached, or refuses.
    """
    from components.model_report import lineage

    if not settings.metadata_connection:
        return lineage.open_store(lineage.sqlite_connection(settings.metadata_path))
    config = connection(settings)
    try:
        return lineage.open_store(config)
    except Exception as error:  # as in `prepare`
        raise _unusable(settings, error) from error


def _unusable(settings: Settings, error: Exception) -> ServerError:
    return ServerError(
        f"metadata_connection={settings.metadata_connection!r} cannot be used: {error}. Is the server there, does it "
        "have the database, and is METADATA_PASSWORD (or METADATA_PASSWORD_FILE) right?"
    )


def list_runs(settings: Settings) -> list[Run]:
    """All runs of a profile, the oldest first; a server holds those of others too."""
    from components.model_report import lineage

    return lineage.list_runs(open_store(settings), own_pipeline(settings))


def own_pipeline(settings: Settings) -> str:
    """The pipeline's name where its metadata may hold other pipelines' as well, else an empty text."""
    if not settings.metadata_connection:
        return ""
    path = settings.pipeline_name_path
    return path.read_text(encoding="utf-8").strip() if path.exists() else settings.pipeline_name


@contextlib.contextmanager
def password_hidden(config: ConnectionConfig) -> Iterator[None]:
    """Keep a connection's password out of all log records: TFX's runner logs the connection."""
    shown = str(config.mysql.password)
    if not shown:
        yield
        return
    # As it is, and as a protocol buffer's text form writes it.
    (field,) = [line for line in str(config).splitlines() if line.strip().startswith("password:")]
    secrets = {shown, field.split(":", 1)[1].strip()[1:-1]}
    make_record = logging.getLogRecordFactory()

    def make_record_without(*arguments: object, **named: object) -> logging.LogRecord:
        record = make_record(*arguments, **named)
        if record.args:
            text = record.getMessage()
            if any(secret in text for secret in secrets):
                record.msg, record.args = text, ()
        for secret in secrets:
            record.msg = record.msg.replace(secret, "…") if isinstance(record.msg, str) else record.msg
        return record

    logging.setLogRecordFactory(make_record_without)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
