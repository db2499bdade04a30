"""Service hooks: subscriptions, and the deliveries of their events with the service's rules of retry and probation.

https://learn.microsoft.com/azure/devops/service-hooks/troubleshoot
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlsplit

import aiohttp

from sandbox.azure_devops import release_events, views
from sandbox.azure_devops.changes import Changes
from sandbox.azure_devops.events import COMMON_INPUTS, KINDS, Event, render, trim
from sandbox.azure_devops.records import Shelf, Store, new_id, now
from sandbox.azure_devops.releases import ReleaseStore
from sandbox.azure_devops.views import Json, present, when
from sandbox.faults import Faults
from sandbox.names import PROJECT_ID

log = logging.getLogger("sandbox.azure_devops.hooks")

MASK = "********"
SECRETS = ("basicAuthPassword", "httpHeaders")
TRANSIENT = frozenset({408, 502, 503, 504})
AGAIN = (1, 2, 4, 8, 16, 32, 60, 60)  # seconds to the next attempt after a transient failure
PROBATION = (20 * 60, 40 * 60, 80 * 60, 160 * 60, 320 * 60, 640 * 60, 900 * 60)  # and after an enduring one
TIMEOUT = 20  # seconds that a receiver has; the service documents none
KEPT = 400  # notifications of one subscription
VISIBLE = 2_000  # characters of a receiver's answer that the history shows


class BadSubscription(Exception):
    """The subscription is refused; the message says why, as the service would."""


@dataclass(slots=True)
class Subscription:
    """What is to be sent where. `host` is the one that knows it: releases have a service of their own."""

    id: str
    host: str
    publisher: str
    event: str
    version: str
    inputs: dict[str, str]
    consumer: dict[str, str]
    created: datetime
    created_by: str
    modified: datetime
    modified_by: str
    status: str = "enabled"  # enabled | onProbation | disabledByUser | disabledBySystem
    probation_retries: int = 0
    probation_at: datetime | None = None
    sent: int = 0


@dataclass(slots=True)
class Notification:
    """One event for one subscription, and what became of it."""

    id: int
    subscription: str
    event: Event
    created: datetime
    modified: datetime
    status: str = "queued"  # queued | requestInProgress | queuedForRetry | completed
    result: str = "pending"  # pending | succeeded | failed
    attempts: int = 0
    request: str = ""
    response: str = ""
    error: str = ""
    duration: float = 0.0
    completed: datetime | None = None
    document: Json | None = field(default=None)


class Hooks:
    """Tells subscribers what happens.

    `pace` shortens the waits of retries and probation, `latency` the time until an event leaves: 1 is the service's own.
    """

    def __init__(
        self, store: Store, releases: ReleaseStore, faults: Faults, changes: Changes, *, pace: float = 0.5, latency: float = 0.05
    ) -> None:
        self.pace = pace
        self.latency = latency
        self._changes = changes
        self._store = store
        self._releases = releases
        self._faults = faults
        self._subscriptions = Shelf(store.state.table("ado.subscriptions"), Subscription)
        self._notifications = Shelf(store.state.table("ado.notifications"), Notification)
        self._held: list[tuple[Subscription, Notification]] = []
        self._lanes: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Deliver what was queued when the sandbox stopped."""
        # A receiver is reached directly: proxy variables of this process are not for it.
        self._session = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        for notification in self._notifications:
            subscription = self._subscriptions.get(notification.subscription)
            if notification.status != "completed" and subscription is not None:
                self._spawn(subscription, notification, 0)

    async def stop(self) -> None:
        """End all deliveries; what is not delivered stays queued."""
        self._held.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def subscriptions(self, host: str | None = None) -> list[Subscription]:
        """All subscriptions of a host, or of both."""
        return [one for one in self._subscriptions if host in (None, one.host)]

    def subscription(self, id: str, host: str | None = None) -> Subscription | None:
        """One subscription, if the host knows it."""
        found = self._subscriptions.get(id.lower())
        return found if found and host in (None, found.host) else None

    def create(self, host: str, body: Json, who: str) -> Subscription:
        """A new subscription. Raises BadSubscription."""
        kind, inputs, consumer = _checked(host, body)
        at = now()
        key = new_id()
        made = Subscription(
            id=key,
            host=host,
            publisher=KINDS[kind].publisher,
            event=kind,
            version=_version(kind, body),
            inputs=inputs | {"tfsSubscriptionId": key},
            consumer=consumer,
            created=at,
            created_by=who,
            modified=at,
            modified_by=who,
        )
        return self._subscriptions.keep(key, made)

    def replace(self, old: Subscription, body: Json, who: str) -> Subscription:
        """Change a subscription; secrets that come back masked stay. Raises BadSubscription."""
        sent = dict(body.get("consumerInputs") or {})
        body = body | {"consumerInputs": sent | {name: old.consumer[name] for name in SECRETS if _is_mask(sent.get(name), old, name)}}
        kind, inputs, consumer = _checked(old.host, body)
        enabled = body.get("status") in (None, "enabled", "onProbation")
        made = replace(
            old,
            event=kind,
            publisher=KINDS[kind].publisher,
            version=_version(kind, body),
            inputs=inputs | {"tfsSubscriptionId": old.id},
            consumer=consumer,
            modified=now(),
            modified_by=who,
            status="enabled" if enabled else "disabledByUser",
            probation_retries=0,
        )
        return self._subscriptions.keep(old.id, made)

    def delete(self, subscription: Subscription) -> None:
        """Forget a subscription with its history."""
        self._subscriptions.drop(subscription.id)
        for notification in self.history(subscription.id):
            self._notifications.drop(_key(notification))

    def history(self, subscription: str) -> list[Notification]:
        """The notifications of a subscription, newest first."""
        found = [one for one in self._notifications if one.subscription == subscription]
        return sorted(found, key=lambda one: one.id, reverse=True)

    def everything(self) -> list[Notification]:
        """Every notification, newest first."""
        return sorted(self._notifications, key=lambda one: (one.created, one.id), reverse=True)

    def happened(self, event: Event, *, delay: float = 0) -> None:
        """Tell everyone it interests, after `delay` seconds (of the service's own pace)."""
        if self._faults.take("hooks.drop") is not None:  # nobody hears of it, ever
            return
        for subscription in self._subscriptions:
            if subscription.event == event.kind and subscription.status == "enabled" and event.interests(subscription.inputs):
                self._queue(subscription, event, delay)
            elif subscription.event == event.kind and subscription.status == "onProbation":
                log.info("lost, since the subscription %s is on probation: %s", subscription.id, event.kind)

    def test(self, subscription: Subscription, event: Event) -> Notification:
        """Send a test notification."""
        return self._queue(subscription, event, 0)

    def _queue(self, subscription: Subscription, event: Event, delay: float) -> Notification:
        subscription.sent += 1
        self._subscriptions.keep(subscription.id, subscription)
        at = now()
        notification = Notification(subscription.sent, subscription.id, event, at, at)
        if self._faults.take("hooks.lose") is not None:
            return notification
        self._keep(notification)
        self._prune(subscription.id, subscription.sent)
        if late := self._faults.take("hooks.late"):
            delay += float(late.get("seconds", 2)) / max(self.latency, 1e-9)
        if (shuffle := self._faults.take("hooks.shuffle")) is not None:
            self._hold_back(subscription, notification, float(shuffle.get("seconds", 3)))
            return notification
        self._spawn(subscription, notification, delay)
        if self._faults.take("hooks.duplicate") is not None:
            self._spawn(subscription, notification, delay)
        return notification

    def _hold_back(self, subscription: Subscription, notification: Notification, seconds: float) -> None:
        """Keep it until the last one to be shuffled has come, or `seconds` have passed: fewer may come."""
        if not self._held:
            asyncio.get_running_loop().call_later(seconds, self._release)
        self._held.append((subscription, notification))
        if not self._faults.armed("hooks.shuffle"):
            self._release()

    def _release(self) -> None:
        """Deliver what a shuffle held back, the newest first."""
        held, self._held = self._held[::-1], []
        for place, (subscription, notification) in enumerate(held):
            self._spawn(subscription, notification, place)

    def _spawn(self, subscription: Subscription, notification: Notification, delay: float) -> None:
        task = asyncio.create_task(self._deliver(subscription.id, notification, delay))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (trouble := task.exception()):
            log.error("a delivery broke", exc_info=trouble)

    async def _deliver(self, subscription_id: str, notification: Notification, delay: float) -> None:
        """Deliver after `delay` seconds of the service's own latency, and again as its rules say."""
        await asyncio.sleep(delay * self.latency)
        retries = 0
        while True:
            async with self._lanes.setdefault(subscription_id, asyncio.Lock()):
                subscription = self._subscriptions.get(subscription_id)
                if subscription is None or subscription.status.startswith("disabled"):
                    self._finish(notification, "failed", "The subscription is disabled.")
                    return
                status = await self._attempt(subscription, notification)
            match status:
                case int() if 200 <= status < 300:
                    self._recovered(subscription_id)
                    self._finish(notification, "succeeded")
                    return
                case 410:
                    self._set(subscription_id, "disabledBySystem")
                    self._finish(notification, "failed")
                    return
                case _ if (status in TRANSIENT or status is None) and retries < len(AGAIN):
                    self._mark(notification, "queuedForRetry")
                    await asyncio.sleep(AGAIN[retries] * self.pace)
                    retries += 1
                case _:
                    wait = self._probation(subscription_id)
                    if wait is None:
                        self._finish(notification, "failed")
                        return
                    self._mark(notification, "queuedForRetry")
                    await asyncio.sleep(wait * self.pace)

    async def _attempt(self, subscription: Subscription, notification: Notification) -> int | None:
        """One request; the receiver's status, or None where nobody answered (which counts as transient)."""
        assert self._session is not None
        rendered = self._rendered(notification.event, subscription)
        if rendered is None:
            return 200  # the run or release is gone: there is nothing left to tell
        consumer = subscription.consumer
        document = {"subscriptionId": subscription.id, "notificationId": notification.id} | trim(
            rendered,
            consumer.get("resourceDetailsToSend") or "all",
            consumer.get("messagesToSend") or "all",
            consumer.get("detailedMessagesToSend") or "all",
        )
        notification.document = rendered
        notification.attempts += 1
        self._mark(notification, "requestInProgress")
        headers = _headers(consumer) | {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "VSServices/20.256.36719.1 (w3wp.exe) (Service Hooks)",
            "X-VSS-ActivityId": new_id(),
            "X-VSS-SubscriptionId": subscription.id,
        }
        notification.request = "\n".join(
            [f"Method: POST\nURI: {consumer['url']}"]
            + [f"{name}: {MASK if name in _secret_headers(consumer) else value}" for name, value in headers.items()]
        )
        before = asyncio.get_running_loop().time()
        try:
            async with self._session.post(
                consumer["url"], data=json.dumps(document).encode(), headers=headers, allow_redirects=False
            ) as answer:
                text = (await answer.content.read(VISIBLE)).decode(errors="replace")
                notification.response = f"Status Code: {answer.status}\nReason Phrase: {answer.reason}\n\n{text}"
                notification.error = "" if answer.ok else f"{answer.reason} ({answer.status})"
                return answer.status
        except (aiohttp.ClientError, TimeoutError) as trouble:
            notification.response = ""
            notification.error = f"An error occurred while sending the request. {type(trouble).__name__}"
            return None
        finally:
            notification.duration = asyncio.get_running_loop().time() - before

    def _rendered(self, event: Event, subscription: Subscription) -> Json | None:
        if subscription.publisher == "rm":
            return release_events.render(event, subscription.version, self._releases, self._store)
        return render(event, subscription.version, self._store)

    def _recovered(self, id: str) -> None:
        subscription = self._subscriptions.get(id)
        if subscription and subscription.status == "onProbation":
            subscription.probation_retries = 0
            self._set(id, "enabled")

    def _probation(self, id: str) -> float | None:
        """Put the subscription on probation; seconds to the next attempt, or None once it is disabled or another notification tries."""
        subscription = self._subscriptions.get(id)
        if subscription is None:
            return None
        if subscription.probation_retries >= len(PROBATION):
            self._set(id, "disabledBySystem")
            return None
        wait = PROBATION[subscription.probation_retries]
        subscription.probation_retries += 1
        subscription.probation_at = now()
        self._set(id, "onProbation")
        return wait

    def _set(self, id: str, status: str) -> None:
        subscription = self._subscriptions.get(id)
        if subscription:
            subscription.status = status
            self._subscriptions.keep(id, subscription)
            self._changes.happened()

    def _mark(self, notification: Notification, status: str) -> None:
        notification.status = status
        self._keep(notification)

    def _finish(self, notification: Notification, result: str, error: str = "") -> None:
        notification.result = result
        notification.error = error or notification.error
        notification.completed = now()
        self._mark(notification, "completed")

    def _keep(self, notification: Notification) -> None:
        notification.modified = now()
        if self._subscriptions.get(notification.subscription):
            self._notifications.keep(_key(notification), notification)
            self._changes.happened()

    def _prune(self, subscription: str, newest: int) -> None:
        with contextlib.suppress(KeyError):
            self._notifications.drop(f"{subscription}:{newest - KEPT}")


def subscription_view(one: Subscription) -> Json:
    """A subscription as the API shows it: its secrets are masked."""
    consumer = {name: _masked(name, value) for name, value in one.consumer.items()}
    url = f"https://{one.host}/contoso/_apis/hooks/subscriptions/{one.id}"
    return present(
        {
            "id": one.id,
            "url": url,
            "status": one.status,
            "publisherId": one.publisher,
            "eventType": one.event,
            "subscriber": views.identity(one.modified_by),
            "resourceVersion": one.version,
            "eventDescription": _described(one.inputs),
            "consumerId": "webHooks",
            "consumerActionId": "httpRequest",
            "actionDescription": f"To host {urlsplit(one.consumer['url']).netloc}",
            "probationRetries": one.probation_retries or None,
            "lastProbationRetryDate": when(one.probation_at),
            "createdBy": views.identity(one.created_by),
            "createdDate": when(one.created),
            "modifiedBy": views.identity(one.modified_by),
            "modifiedDate": when(one.modified),
            "publisherInputs": one.inputs,
            "consumerInputs": consumer,
            "_links": {"self": {"href": url}},
        }
    )


def notification_view(one: Notification, subscription: Subscription | None, *, details: bool) -> Json:
    """A notification as the API shows it."""
    shown: Json = {
        "id": one.id,
        "subscriptionId": one.subscription,
        "subscriberId": subscription.modified_by if subscription else views.EMPTY,
        "eventId": one.event.id,
        "status": one.status,
        "result": one.result,
        "createdDate": when(one.created),
        "modifiedDate": when(one.modified),
    }
    if details and subscription:
        shown["details"] = present(
            {
                "eventType": one.event.kind,
                "event": one.document,
                "publisherId": subscription.publisher,
                "publisherInputs": subscription.inputs,
                "consumerId": "webHooks",
                "consumerActionId": "httpRequest",
                "consumerInputs": {name: _masked(name, value) for name, value in subscription.consumer.items()},
                "request": one.request,
                "response": one.response,
                "errorMessage": one.error or None,
                "queuedDate": when(one.created),
                "dequeuedDate": when(one.created),
                "processedDate": when(one.modified),
                "completedDate": when(one.completed),
                "requestDuration": one.duration,
                "requestAttempts": one.attempts,
            }
        )
    return shown


def summary_view(notifications: Iterable[Notification]) -> list[Json]:
    """How many notifications of each subscription had which result."""
    counted = Counter((one.subscription, one.result) for one in notifications)
    subscriptions = dict.fromkeys(subscription for subscription, _ in counted)
    return [
        {
            "subscriptionId": subscription,
            "results": [{"result": result, "notificationCount": count} for (of, result), count in counted.items() if of == subscription],
        }
        for subscription in subscriptions
    ]


def publishers_view(host: str) -> list[Json]:
    """The publishers of a host, with their event types."""
    titles = {"tfs": "Azure Repos and Build", "pipelines": "Azure Pipelines", "rm": "Azure Release"}
    here = [name for name in titles if (name == "rm") == host.startswith("vsrm.")]
    return [
        {
            "id": publisher,
            "name": titles[publisher],
            "url": f"https://{host}/contoso/_apis/hooks/publishers/{publisher}",
            "supportedEvents": [
                {"publisherId": publisher, "id": name, "name": name, "supportedResourceVersions": list(kind.versions)}
                for name, kind in KINDS.items()
                if kind.publisher == publisher
            ],
        }
        for publisher in here
    ]


def _key(notification: Notification) -> str:
    return f"{notification.subscription}:{notification.id}"


def _checked(host: str, body: Json) -> tuple[str, dict[str, str], dict[str, str]]:
    """The event type, publisher inputs and consumer inputs of a request. Raises BadSubscription."""
    name = str(body.get("eventType") or "")
    kind = KINDS.get(name)
    if kind is None or (kind.publisher == "rm") != host.startswith("vsrm."):
        raise BadSubscription(f"There is no registered handler for the service hooks event type {name}.")
    if body.get("publisherId") != kind.publisher:
        raise BadSubscription(f"The publisher {body.get('publisherId')} does not publish the event type {name}.")
    if (body.get("consumerId"), body.get("consumerActionId")) != ("webHooks", "httpRequest"):
        raise BadSubscription("The sandbox knows one consumer action only: webHooks, httpRequest.")
    inputs = _texts(body.get("publisherInputs"), "publisherInputs")
    if unknown := sorted(set(inputs) - set(kind.inputs) - set(COMMON_INPUTS)):
        raise BadSubscription(f"The publisher input {unknown[0]} is not supported by the event type {name}.")
    if inputs.get("projectId", "") not in ("", PROJECT_ID):
        raise BadSubscription(f"The project {inputs['projectId']} does not exist.")
    consumer = _texts(body.get("consumerInputs"), "consumerInputs")
    check_url(consumer.get("url", ""))
    _parse_headers(consumer.get("httpHeaders", ""))
    return name, inputs, consumer


def check_url(url: str) -> None:
    """Only this machine may be told: nothing leaves the sandbox."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadSubscription("The consumer input url is required and must be an http or https address.")
    host = parts.hostname
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise BadSubscription(f"The sandbox delivers to this machine only (127.0.0.1 or localhost), not to {host}.")


def _texts(value: object, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str | None) for one in value.values()):
        raise BadSubscription(f"{name} must be an object of texts.")
    return {str(key): one for key, one in value.items() if one is not None}


def _version(kind: str, body: Json) -> str:
    known = KINDS[kind].versions
    asked = body.get("resourceVersion") or ("2.0" if "2.0" in known else known[-1])
    if asked not in known:
        raise BadSubscription(f"The resource version {asked} is not supported by the event type {kind}; supported are {', '.join(known)}.")
    return str(asked)


def _parse_headers(text: str) -> dict[str, str]:
    headers = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise BadSubscription("The consumer input httpHeaders must hold one 'Name:value' in each line.")
        headers[name.strip()] = value.strip()
    return headers


def _headers(consumer: Mapping[str, str]) -> dict[str, str]:
    headers = _parse_headers(consumer.get("httpHeaders", ""))
    if consumer.get("basicAuthUsername") or consumer.get("basicAuthPassword"):
        pair = f"{consumer.get('basicAuthUsername', '')}:{consumer.get('basicAuthPassword', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _secret_headers(consumer: Mapping[str, str]) -> set[str]:
    return {"Authorization", *_parse_headers(consumer.get("httpHeaders", ""))}


def _masked(name: str, value: str) -> str:
    if not value:
        return value
    if name == "basicAuthPassword":
        return MASK
    if name == "httpHeaders":
        return "\n".join(f"{header}:{MASK}" for header in _parse_headers(value))
    return value


def _is_mask(sent: str | None, old: Subscription, name: str) -> bool:
    return name in old.consumer and sent is not None and sent == _masked(name, old.consumer[name])


def _described(inputs: Mapping[str, str]) -> str:
    chosen = [f"{name} {value}" for name, value in inputs.items() if value and name not in COMMON_INPUTS]
    return ", ".join(chosen) or "Any event of this type"
