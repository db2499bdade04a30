"""The bot's own identity: its tokens, and what is said when there are none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from azure.core.exceptions import ClientAuthenticationError

from bot.core.errors import NotNow
from bot.credential import AZURE, AZURE_DEVOPS, Credential
from sandbox.azure_devops.server import AzureDevOps as LocalAzureDevOps
from sandbox.names import BOT
from tests.sandboxes import sandbox

# A bot process, as far as its edge to Azure DevOps: only its environment tells it from production.
PROCESS = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from bot.azure_devops import AzureDevOps
from bot.credential import AZURE_DEVOPS, Credential

async def main():
    credential = Credential()
    azure = AzureDevOps("contoso", "ml-delivery", token=lambda: credential.token(AZURE_DEVOPS), cache=Path(sys.argv[1]))
    print(len(await azure.recent(1, datetime.now(UTC))), await azure.hooks.pipeline_name(1))
    await azure.close()

asyncio.run(main())
print("azure.ai.ml" in sys.modules)
"""


@dataclass
class Token:
    """What azure-identity gives."""

    token: str


@dataclass
class Identity:
    """A credential that works, or does not."""

    error: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def get_token(self, scope: str) -> Token:
        self.asked.append(scope)
        if self.error:
            raise self.error
        return Token(f"token for {scope}")


def test_the_identity_is_made_when_it_is_first_needed_and_once() -> None:
    made: list[Identity] = []

    def make() -> Identity:
        made.append(Identity())
        return made[-1]

    credential = Credential(make)
    assert made == []

    tokens = [credential.token(AZURE_DEVOPS), credential.token(AZURE)]

    assert tokens == [f"token for {AZURE_DEVOPS}", f"token for {AZURE}"]
    assert [identity.asked for identity in made] == [[AZURE_DEVOPS, AZURE]]


@pytest.mark.parametrize("error", [ClientAuthenticationError("AADSTS7000215: secret s3cret is wrong"), ValueError("<html>s3cret")])
def test_without_an_identity_nothing_is_said_of_its_secrets(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    credential = Credential(lambda: Identity(error))

    with pytest.raises(NotNow, match="could not sign in") as raised:
        credential.token(AZURE)

    assert "s3cret" not in str(raised.value) + caplog.text
    assert raised.value.__cause__ is None


@pytest.mark.world
async def test_a_bot_process_signs_in_and_asks_by_its_environment_alone(tmp_path: Path) -> None:
    async with sandbox(tmp_path / "world", LocalAzureDevOps) as world:
        command = [sys.executable, "-c", PROCESS, str(tmp_path / "cache")]

        done = await asyncio.to_thread(
            subprocess.run, command, env=world.outside(BOT), capture_output=True, text=True, timeout=60, check=False
        )

        assert done.stdout.split() == ["0", "diabetes", "False"], done.stderr
        assert world.proxy is not None
        assert world.proxy.refused == []
