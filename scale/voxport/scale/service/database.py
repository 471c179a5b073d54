"""SQLite and PostgreSQL, as far as the store of voices needs them: one text of SQL for both."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from voxport.scale.errors import ScaleError

_BUSY_S = 20.0  # that a writer of SQLite waits for another


class Database(Protocol):
    """Connections are made by thread; each transaction is whole or not there, and writers wait for each other."""

    def write(self) -> contextlib.AbstractContextManager["Cursor"]:
        """A transaction that changes; the changes of others are seen, and wait."""
        ...

    def read(self) -> contextlib.AbstractContextManager["Cursor"]:
        """A transaction that sees one state."""
        ...

    def tidy(self) -> None:
        """Have what was deleted overwritten, outside any transaction."""
        ...

    def close(self) -> None:
        """End the connections of all threads, none of which uses its own any more."""
        ...


class Cursor(Protocol):
    """What runs SQL with `?` for values."""

    def __call__(self, sql: str, *values: object) -> list[tuple[Any, ...]]: ...


class SqliteDatabase:
    """A file that processes of one machine share."""

    blob = "BLOB"

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises ScaleError where that cannot be done."""
        self._path, self._local = path, threading.local()
        self._open: list[sqlite3.Connection] = []
        try:
            with self.read() as run:
                run("SELECT name FROM sqlite_master LIMIT 1")
        except sqlite3.Error as problem:
            self.close()
            raise ScaleError(f"{path}: cannot be used as a store of voices ({problem})") from problem

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            # Another thread may close it, when no thread uses it any more.
            found = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._open.append(found)
            found.execute("PRAGMA journal_mode=WAL")
            found.execute("PRAGMA synchronous=FULL")  # what was answered is on disk
            found.execute("PRAGMA secure_delete=ON")  # who is forgotten leaves no bytes behind
            self._local.connection = found
        return found

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Cursor]:
        connection = self._connection()
        connection.execute(begin)
        try:
            yield lambda sql, *values: connection.execute(sql, values).fetchall()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def write(self) -> contextlib.AbstractContextManager[Cursor]:
        """See Database."""
        return self._transaction("BEGIN IMMEDIATE")

    def read(self) -> contextlib.AbstractContextManager[Cursor]:
        """See Database."""
        return self._transaction("BEGIN")

    def close(self) -> None:
        """See Database."""
        while self._open:
            self._open.pop().close()

    def tidy(self) -> None:
        """See Database; until then the old bytes stand in the log of writes."""
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class PostgresDatabase:
    """A server that replicas on many machines share."""

    blob = "BYTEA"

    def __init__(self, url: str) -> None:
        """Connect. Raises ScaleError where the server does not answer, BackendError where psycopg is missing."""
        import psycopg

        self._psycopg, self._url, self._local = psycopg, url, threading.local()
        self._open: list[Any] = []
        try:
            self._connection()
        except psycopg.Error as problem:
            first = str(problem).strip().splitlines()[0]
            raise ScaleError(f"the store of voices does not answer ({first}); is the URL right?") from problem

    def _connection(self) -> Any:
        found = getattr(self._local, "connection", None)
        if found is None or found.closed or found.broken:
            found = self._psycopg.connect(self._url, autocommit=True, connect_timeout=10)
            self._open.append(found)
            self._local.connection = found
        return found

    def close(self) -> None:
        """See Database."""
        while self._open:
            self._open.pop().close()

    @contextlib.contextmanager
    def _transaction(self, writes: bool) -> Iterator[Cursor]:
        connection = self._connection()

        def run(sql: str, *values: object) -> list[tuple[Any, ...]]:
            done = connection.execute(sql.replace("?", "%s"), _plain(values))
            return list(done.fetchall()) if done.description is not None else []

        with connection.transaction():
            # A writer sees what the one before it has written, and is numbered after it: changes are told by number.
            run("SET TRANSACTION ISOLATION LEVEL " + ("READ COMMITTED" if writes else "REPEATABLE READ"))
            if writes:
                run("SELECT pg_advisory_xact_lock(8462759318)")
            yield run

    def write(self) -> contextlib.AbstractContextManager[Cursor]:
        """See Database."""
        return self._transaction(True)

    def read(self) -> contextlib.AbstractContextManager[Cursor]:
        """See Database."""
        return self._transaction(False)

    def tidy(self) -> None:
        """See Database; rows that a transaction may still see stay until the server's own vacuum."""
        self._connection().execute("VACUUM voices")


def _plain(values: Sequence[object]) -> Sequence[object]:
    return [bytes(value) if isinstance(value, memoryview) else value for value in values]


def open_database(url: str) -> SqliteDatabase | PostgresDatabase:
    """The database of a URL: `postgresql://…`, `sqlite:///FILE`, or the name of a file.

    Raises:
        ScaleError: it cannot be opened.
    """
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(url)
    return SqliteDatabase(Path(url.removeprefix("sqlite:///")))
