"""Fixtures that more than one file needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from bot.database import Database
from tests.database import Cluster, cluster
from tests.fakes import World


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
