"""An Azure that answers at once and never changes: what is measured is ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from bot.core.approvals import Approval
from bot.core.errors import Gone, SignInNeeded
from bot.core.models import ModelVersion
from bot.core.people import Account, Person
from bot.core.runs import Failure, Run, Stage, State
from bot.ports import Acting
from sandbox.names import PIPELINE, PIPELINE_ID

BEGAN = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
STAGES = ("prepare", "workspace", "train", "evaluate", "register", "image", "publish", "qa", "prod")


class NullPipelines:
    """`bot.ports.Pipelines`: every run trains."""

    async def run(self, run_id: int) -> Run:
        """The run, in the middle of its training."""
        done = STAGES.index("train")
        states = [State.SUCCEEDED] * done + [State.RUNNING] + [State.PENDING] * (len(STAGES) - done - 1)
        return Run(
            id=run_id,
            number=f"20261123.{run_id}",
            pipeline_id=PIPELINE_ID,
            pipeline=PIPELINE,
            state=State.RUNNING,
            branch="refs/heads/main",
            commit="3f6f1f0a2001c1e5b1a7a7f0f4f4d2c3b2a19180",
            url=f"https://dev.azure.com/contoso/ml-delivery/_build/results?buildId={run_id}",
            created=BEGAN,
            started=BEGAN,
            stages=tuple(Stage(name, name.capitalize(), state) for name, state in zip(STAGES, states, strict=True)),
        )

    async def recent(self, pipeline_id: int, since: datetime) -> tuple[Run, ...]:
        """None."""
        return ()

    async def release(self, release_id: int) -> Run:
        """None."""
        raise Gone(f"Release {release_id} does not exist.")

    async def recent_releases(self, definition_id: int, since: datetime) -> tuple[Run, ...]:
        """None."""
        return ()

    async def failure(self, run: Run) -> Failure | None:
        """None."""
        return None

    async def artifact(self, run_id: int, name: str) -> Mapping[str, bytes]:
        """Not there yet."""
        return {}

    async def attached(self, release: Run, stage: str) -> Mapping[str, bytes]:
        """Not there yet."""
        return {}

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        """None."""
        return ()

    async def pending_approvals(self) -> tuple[Approval, ...]:
        """None."""
        return ()

    async def started(self, pipeline_id: int, token: str, since: datetime) -> Run | None:
        """None."""
        return None

    async def deployed(self, pipeline_id: int, stage: str, before: int) -> tuple[int, ...]:
        """None."""
        return ()

    async def redeployable(self, definition_id: int, stage: str, before: int) -> tuple[int, ...]:
        """None."""
        return ()

    async def groups_of(self, person: Person) -> frozenset[str]:
        """None."""
        return frozenset()

    async def people(self, named: str) -> tuple[Person, ...]:
        """Nobody."""
        return ()


class NullIdentities:
    """`bot.ports.Identities`: nobody is signed in."""

    async def acting(self, _: str) -> Acting:
        """Nobody."""
        raise SignInNeeded("Sign in first.")

    async def account(self, _: str) -> Account | None:
        """None."""
        return None

    async def forget(self, _: str) -> bool:
        """Nobody."""
        return False


class NullModels:
    """`bot.ports.Models`: nothing is registered."""

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """None."""
        return ()

    async def metrics(self, run_id: str) -> Mapping[str, float]:
        """None."""
        return {}
