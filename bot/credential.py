"""Edge: the bot's own identity in Entra, as tokens for one audience or another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from bot.core.errors import NotNow

AZURE_DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798/.default"
AZURE = "https://management.azure.com/.default"

log = logging.getLogger(__name__)


def default_credential() -> Any:
    """A managed identity, a workload identity, environment variables or the developer's `az login`, whichever is there.

    https://learn.microsoft.com/azure/developer/python/sdk/authentication/credential-chains
    """
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 imported by those who need it: it takes a third of a second

    return DefaultAzureCredential()


class Credential:
    """Tokens of the bot, kept and renewed by azure-identity. Thread-safe; blocks, so it is called from threads."""

    def __init__(self, make: Callable[[], Any] = default_credential) -> None:
        self._make = make
        self._inner: Any = None
        self._making = threading.Lock()

    def token(self, scope: str) -> str:
        """A token for the scope. Raises NotNow: nothing was done, and somebody has to mend the identity first."""
        from azure.core.exceptions import AzureError  # noqa: PLC0415 as above

        with self._making:
            if self._inner is None:
                self._inner = self._make()
        try:
            token: str = self._inner.get_token(scope).token
        except (AzureError, ValueError) as error:  # a managed-identity endpoint that answers no JSON surfaces as a ValueError
            log.warning("No token for %s: %s", scope, type(error).__name__)
            raise NotNow("Callboard could not sign in to Azure.") from None
        return token
