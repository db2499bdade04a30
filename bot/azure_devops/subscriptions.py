"""Service-hook subscriptions over the SDK: `bot.hooks.Subscriptions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bot.hooks import ENABLED, Subscription

if TYPE_CHECKING:
    from bot.azure_devops.wire import Clients, Wire


class ServiceHooks:
    """The subscriptions of an organisation."""

    def __init__(self, wire: Wire, project: str) -> None:
        self._wire = wire
        self._project = project

    async def project_id(self) -> str:
        """The id of the project."""
        project = await self._wire.read(lambda ask: ask.core.get_project(self._project))
        return str(project.id)

    async def pipeline_name(self, pipeline_id: int) -> str:
        """The name of a pipeline."""
        pipeline = await self._wire.read(lambda ask: ask.pipelines.get_pipeline(self._project, pipeline_id))
        return str(pipeline.name)

    async def list(self, *, releases: bool) -> tuple[Subscription, ...]:
        """Every subscription of the organisation."""
        found = await self._wire.read(lambda ask: ask.hooks.list_subscriptions())
        if releases:
            # Each host may list the other's, too.
            more = await self._wire.read(lambda ask: ask.release_hooks.list_subscriptions())
            known = {one.id for one in found}
            found = [*found, *(one for one in more if one.id not in known)]
        return tuple(_ours(one) for one in found)

    async def create(self, subscription: Subscription) -> None:
        """Add one."""
        await self._wire.write(lambda to: _host(to, subscription).create_subscription(_theirs(subscription)))

    async def replace(self, id: str, subscription: Subscription) -> None:
        """Write one anew, and switch it on."""
        ask = {**_theirs(subscription), "id": id, "status": ENABLED}
        await self._wire.write(lambda to: _host(to, subscription).replace_subscription(ask, id))

    async def remove(self, subscription: Subscription) -> None:
        """Remove one."""
        await self._wire.write(lambda to: _host(to, subscription).delete_subscription(subscription.id))


def _host(clients: Clients, subscription: Subscription) -> Any:
    return clients.release_hooks if subscription.publisher == "rm" else clients.hooks


def _ours(said: Any) -> Subscription:
    return Subscription(
        publisher=said.publisher_id or "",
        event=said.event_type or "",
        version=said.resource_version or "",
        inputs=said.publisher_inputs or {},
        consumer=said.consumer_inputs or {},
        consumer_id=said.consumer_id or "",
        action=said.consumer_action_id or "",
        id=said.id,
        status=said.status or ENABLED,
    )


def _theirs(subscription: Subscription) -> dict[str, Any]:
    return {
        "publisherId": subscription.publisher,
        "eventType": subscription.event,
        "resourceVersion": subscription.version,
        "consumerId": subscription.consumer_id,
        "consumerActionId": subscription.action,
        "publisherInputs": dict(subscription.inputs),
        "consumerInputs": dict(subscription.consumer),
    }
