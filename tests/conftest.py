"""Fixtures that more than one file needs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bot.database import Database
from tests.database import Cluster, cluster
from tests.fakes import World

# The azure-devops SDK makes this folder when it is imported, in the home directory if nobody says otherwise.
os.environ.setdefault("AZURE_DEVOPS_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "azure-devops"))


@pytest.fixture
def world() -> World:
    """Everything around the bot, in memory."""
    return World()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL server for the whole session."""
    with cluster() as running:
        yield running


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[Database]:
    """A fresh, migrated, opened database for this test alone."""
    url = postgres.fresh()
    opened = Database(url)
    await opened.open()
    yield opened
    await opened.close()
    postgres.drop(url)
