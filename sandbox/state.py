"""What the sandbox remembers across restarts: named tables of JSON documents in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any


class Table(MutableMapping[str, Any]):
    """A persistent dictionary of JSON documents, in order of first insertion.

    Reading gives the live document; after changing one in place, assign it again to keep the change.
    """

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database = database
        self._name = name
        rows = database.execute("select key, value from document where tab = ? order by rowid", (name,))
        self._documents: dict[str, Any] = {key: json.loads(value) for key, value in rows}

    def __getitem__(self, key: str) -> Any:
        return self._documents[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._database.execute(
            "insert into document (tab, key, value) values (?, ?, ?) on conflict (tab, key) do update set value = excluded.value",
            (self._name, key, json.dumps(value)),
        )
        self._documents[key] = value

    def __delitem__(self, key: str) -> None:
        del self._documents[key]
        self._database.execute("delete from document where tab = ? and key = ?", (self._name, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


class State:
    """All tables of the sandbox. One process, one thread."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = off")  # survives our own crash; a power cut may take the last second
        self._database.execute(
            "create table if not exists document (tab text not null, key text not null, value text not null, primary key (tab, key))"
        )
        self._tables: dict[str, Table] = {}

    def table(self, name: str) -> Table:
        """The table of that name, made on first use."""
        if name not in self._tables:
            self._tables[name] = Table(self._database, name)
        return self._tables[name]

    def next(self, counter: str, start: int = 1) -> int:
        """The next number of a counter that survives restarts."""
        counters = self.table("counters")
        value = int(counters.get(counter, start - 1)) + 1
        counters[counter] = value
        return value

    def close(self) -> None:
        """Close the file."""
        self._database.close()
