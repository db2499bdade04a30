"""Edge: Azure DevOps through its SDK. `AzureDevOps` implements `bot.ports.Pipelines`; nothing of the SDK leaves this package.

`wire` talks, `reading` turns answers into core types, `releases` and `release_reading` do both for classic releases, `subscriptions` keeps
service hooks, `edge` puts them together.
"""

from bot.azure_devops.edge import AzureDevOps

__all__ = ["AzureDevOps"]
