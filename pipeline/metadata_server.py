"""The MySQL (MariaDB) server that may keep the runs, as a setting names it. Imports nothing heavy: settings use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

DEFAULT_PORT = 3306


@dataclass(frozen=True)
class Server:
    """A MySQL database, as `metadata_connection` names it.

    Attributes:
        user: name to connect by.
        host: name or address.
        port: TCP port.
        database: name of an existing database; ML Metadata makes its tables.
    """

    user: str
    host: str
    port: int
    database: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read `mysql://user@host:3306/database`; the port may be absent.

        Raises:
            ValueError: it is no such URL, or it holds a password; a password is not repeated.
        """
        wanted = "mysql://user@host:3306/database"
        try:
            parts = urlsplit(url)
            port = parts.port
            has_password = parts.password is not None
        except ValueError:
            raise ValueError(f"Settings.metadata_connection is no URL; it has to be like {wanted}.") from None
        if has_password:
            raise ValueError(
                "Settings.metadata_connection holds a password, which reports and logs would show; set the environment "
                f"variable METADATA_PASSWORD, or METADATA_PASSWORD_FILE to a file's path, and give {wanted}."
            )
        database = parts.path.removeprefix("/")
        if parts.scheme.startswith("postgres"):
            raise ValueError(
                f"Settings.metadata_connection is {url!r}; it has to be like {wanted}: ML Metadata's own support of "
                "PostgreSQL fails at texts with a backslash, which pipelines have."
            )
        complete = parts.scheme == "mysql" and parts.username and parts.hostname and database
        if not complete or "/" in database or parts.query or parts.fragment:
            raise ValueError(f"Settings.metadata_connection is {url!r}; it has to be like {wanted}.")
        return cls(
            user=unquote(parts.username or ""),
            host=parts.hostname or "",
            port=port or DEFAULT_PORT,
            database=unquote(database),
        )

    def connection(self) -> ConnectionConfig:
        """ML Metadata's form of it, without the password."""
        from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

        config = ConnectionConfig()
        config.mysql.user, config.mysql.host, config.mysql.port = self.user, self.host, self.port
        config.mysql.database = self.database
        return config
