"""The azure-devops SDK in a bounded pool of threads, and its errors as ours. The only module that imports the SDK.

The SDK makes its cache folder when it is imported and keeps the routes of a host in it: set AZURE_DEVOPS_CACHE_DIR first.
It knows no asyncio and no total time limit; a call that hangs keeps its thread until its sockets time out, but nobody waits for it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import requests
from azure.devops.exceptions import AzureDevOpsServiceError
from azure.devops.v7_1.build import BuildClient
from azure.devops.v7_1.core import CoreClient
from azure.devops.v7_1.git import GitClient
from azure.devops.v7_1.identity import IdentityClient
from azure.devops.v7_1.location import LocationClient
from azure.devops.v7_1.pipelines import PipelinesClient
from azure.devops.v7_1.release import ReleaseClient
from azure.devops.v7_1.service_hooks import ServiceHooksClient
from azure.devops.v7_1.test import TestClient
from msrest.authentication import Authentication
from msrest.exceptions import AuthenticationError, ClientException, DeserializationError
from requests.auth import AuthBase
from urllib3.exceptions import NewConnectionError, ProxyError, SSLError

from bot.core.errors import Gone, NotNow, OutsideError, Refused, SignInNeeded, Uncertain

T = TypeVar("T")
log = logging.getLogger(__name__)

# At DEBUG the SDK writes the bodies of requests, and with them the password of a new service hook.
logging.getLogger("azure.devops").setLevel(logging.INFO)

THREADS = 16
READ_RETRIES = 1
WRITE_RETRIES = 0
LONGEST_PAUSE = 300.0  # seconds; a Retry-After beyond it is not believed

_WRITES = {"POST", "PATCH", "PUT", "DELETE"}
_FAILURES = (ClientException, DeserializationError, requests.RequestException)
_NO_COOKIES = DefaultCookiePolicy(allowed_domains=[])
_UNKNOWN_ROUTE = "is not registered on"  # the SDK's ValueError where the service's list of routes lacks what it needs


class Clients:
    """One client of the SDK per area, all under the same timeout and retries; `before` and `after` see each request and answer."""

    def __init__(
        self,
        organization: str,
        auth: Authentication,
        *,
        timeout: float,
        retries: int,
        before: Callable[[requests.Session], None],
        after: Callable[..., None],
    ) -> None:
        def sending(session: requests.Session, _config: Any, _local: Any, **kwargs: Any) -> dict[str, Any]:
            before(session)
            return kwargs

        def client(kind: Any, host: str = "dev.azure.com") -> Any:
            # Not through `Connection`: it asks for the areas of the organisation first, over a client of its own that waits 100 s and
            # dials another host where an area is missing. All areas we use answer at the organisation's own address.
            made = kind(f"https://{host}/{organization}", auth)
            made.config.connection.timeout = timeout
            made.config.retry_policy.retries = retries
            made.config.retry_policy.policy.respect_retry_after_header = False  # it would sleep in our thread
            made.config.retry_policy.policy.raise_on_status = False  # the last answer says more than "too many 503"
            made.config.keep_alive = True
            made.config.session_configuration_callback = sending
            made.config.hooks.append(after)
            return made

        self.build = client(BuildClient)
        self.core = client(CoreClient)
        self.git = client(GitClient)
        self.identity = client(IdentityClient, "vssps.dev.azure.com")
        self.location = client(LocationClient)
        self.pipelines = client(PipelinesClient)
        self.test = client(TestClient)
        self.hooks = client(ServiceHooksClient)
        # Classic releases, and subscriptions to them, are only known at the release host.
        self.releases = client(ReleaseClient, "vsrm.dev.azure.com")
        self.release_hooks = client(ServiceHooksClient, "vsrm.dev.azure.com")


class Wire:
    """Asks the SDK off the event loop. `token` gives an Entra token and may block; `timeout` is for one answer, in seconds.

    The clients, their threads and connections are shared by all identities; a token and a pace belong to one.
    """

    def __init__(
        self, organization: str, token: Callable[[], str], *, timeout: float = 15.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._patience = timeout + 5.0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="azure-devops")
        self._room = asyncio.Semaphore(THREADS)
        self._here = threading.local()  # what a call's thread knows of it
        self._clock = clock
        self._pace = Pace(clock)
        self._token = token
        self._personal = False
        auth = Bearer(lambda: str(self._here.token()))
        self._sessions: set[requests.Session] = set()
        self._closed = threading.Event()
        self._reading = Clients(organization, auth, timeout=timeout, retries=READ_RETRIES, before=self._sending, after=self._answered)
        self._writing = Clients(organization, auth, timeout=timeout, retries=WRITE_RETRIES, before=self._sending, after=self._answered)

    def acting(self, token: Callable[[], str]) -> Wire:
        """The same, as a person: their token in every call, and a pace of their own. Their calls raise SignInNeeded, too."""
        theirs = copy.copy(self)
        theirs._token, theirs._pace, theirs._personal = token, Pace(self._clock), True
        return theirs

    async def read(self, ask: Callable[[Clients], T]) -> T:
        """What the SDK answers. Raises Gone, Refused, NotNow."""
        return await self._call(lambda: ask(self._reading), write=False)

    async def find(self, ask: Callable[[Clients], T], kind: str) -> T | None:
        """The same, but None where the service says that a thing of this kind (`ArtifactNotFoundException`) does not exist."""

        def attempt() -> T | None:
            try:
                return ask(self._reading)
            except AzureDevOpsServiceError as error:
                if _kind_of(error) == kind:
                    return None
                raise

        return await self._call(attempt, write=False)

    async def write(self, ask: Callable[[Clients], T]) -> T:
        """The same for what changes something: sent once. Raises Uncertain, too."""
        return await self._call(lambda: ask(self._writing), write=True)

    def close(self) -> None:
        """Start no more calls; those under way end by their own time limits."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for session in tuple(self._sessions):
            session.close()

    async def _call(self, work: Callable[[], T], *, write: bool) -> T:
        pause = self._pace.left()
        if pause > self._patience:
            raise NotNow("Azure DevOps asks us to slow down.", after=pause)
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.sleep(pause)
                await self._room.acquire()
        except TimeoutError:
            raise NotNow("Azure DevOps is slow to answer.", after=self._patience) from None
        if self._closed.is_set():
            self._room.release()
            raise NotNow("Callboard stops.")
        given_up = threading.Event()
        call = asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, work, given_up)
        call.add_done_callback(self._leave)  # room is free when the thread is, not when we stop waiting
        try:
            done, _ = await asyncio.wait({call}, timeout=self._patience)
        finally:
            given_up.set()
        if done:
            return call.result()
        if write:
            raise Uncertain("Azure DevOps did not answer in time.")
        raise NotNow("Azure DevOps did not answer in time.")

    def _leave(self, call: asyncio.Future[Any]) -> None:
        self._room.release()
        if not call.cancelled():
            call.exception()  # seen: nobody may be waiting any more

    def _guarded(self, work: Callable[[], T], given_up: threading.Event) -> T:
        self._here.given_up, self._here.answer = given_up, None
        self._here.token, self._here.pace = self._token, self._pace
        try:
            return work()
        except OutsideError:
            raise
        except _FAILURES as error:
            told = translated(error, self._here.answer, personal=self._personal)
            log.info("Azure DevOps: %s (%s, %s)", told, type(error).__name__, self._here.answer)
            raise told from None
        except ValueError as error:
            if _UNKNOWN_ROUTE not in str(error):
                raise  # our bug
            raise Refused("Azure DevOps does not offer this here.") from None

    def _sending(self, session: requests.Session) -> None:
        """Before each request: what nobody waits for any more is not sent."""
        self._sessions.add(session)  # the SDK opens one per client and thread, and never closes it
        session.cookies.set_policy(_NO_COOKIES)  # they would carry one identity's session to the next
        if self._here.given_up.is_set():
            raise NotNow("It was too late to ask Azure DevOps.")

    def _answered(self, response: requests.Response, *_args: Any, **_kwargs: Any) -> None:
        """After each answer: take note of what the SDK does not pass on."""
        method, page = response.request.method or "", "html" in response.headers.get("Content-Type", "")
        self._here.answer = Answer(method, response.status_code, _number(response.headers.get("Retry-After")), page)
        self._here.pace.heed(response.headers)
        if method in _WRITES:
            _ = response.content  # the SDK leaves an answer it has no use for unread, and its connection unusable


class Pace:
    """How long to hold back, from what the service says of its limits, on good answers too. Shared by all calls of one identity.

    https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until = 0.0
        self._lock = threading.Lock()

    def heed(self, headers: Any) -> None:
        """Take note of an answer's headers."""
        now = self._clock()
        until = now + (_number(headers.get("Retry-After")) or 0.0)
        remaining, reset = _number(headers.get("X-RateLimit-Remaining")), _number(headers.get("X-RateLimit-Reset"))
        if remaining is not None and remaining <= 1 and reset is not None:
            until = max(until, reset)
        with self._lock:
            self._until = max(self._until, min(until, now + LONGEST_PAUSE))

    def left(self) -> float:
        """Seconds to wait before the next call."""
        return max(0.0, self._until - self._clock())


class Bearer(Authentication):
    """A fresh token for every request: the SDK asks for a signed session each time."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def signed_session(self, session: requests.Session | None = None) -> requests.Session:
        """The session, set to sign its requests."""
        session = session or requests.Session()
        session.auth = _Signed(self._token())
        return session


class _Signed(AuthBase):
    """As `auth`, not as a header: a .netrc entry for the host would replace a header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer a call got: its request's method, its status, the seconds it asks us to wait, and whether it is a page."""

    method: str
    status: int
    after: float | None = None
    page: bool = False


def translated(error: Exception, answer: Answer | None, *, personal: bool = False) -> OutsideError:
    """The SDK's failure as ours: what a person or the inbox can do about it; `personal` under a person's token. No secrets in the words."""
    cause = _transport_failure(error)
    if cause is not None:
        # A failure while the body arrives does not name its request; the answer's head has been seen then.
        method = cause.request.method if cause.request is not None else answer.method if answer else None
        if method in _WRITES and not _unsent(cause):
            return Uncertain("The connection to Azure DevOps broke before it answered.")
        return NotNow("Azure DevOps cannot be reached.")
    if answer is None:
        return NotNow("Azure DevOps could not be asked.")
    wrote = answer.method in _WRITES
    says = _sentence(error)
    match answer.status:
        case status if status == 401 or isinstance(error, AuthenticationError) or (status < 300 and answer.page):
            # A token it does not take is answered with 203 and a sign-in page, too.
            return _unwelcome(says, personal=personal)
        case 429:
            return NotNow("Azure DevOps asks us to slow down.", after=answer.after)
        case 404 | 410:
            return Gone(says)
        case 409:
            return Refused(f"Somebody changed this at the same moment. Look at it again. Azure DevOps says: {says}")
        case 408 | 500 | 502 | 503 | 504:
            if wrote:
                return Uncertain("Azure DevOps failed while it worked on this.")
            return NotNow("Azure DevOps has trouble.", after=answer.after)
        case status if status < 300:
            return (Uncertain if wrote else NotNow)("Azure DevOps gave an answer that cannot be read.")
        case _ if "NotFound" in _kind_of(error) or "DoesNotExist" in _kind_of(error):
            return Gone(says)
        case _:
            return Refused(says)


def _unwelcome(says: str, *, personal: bool) -> OutsideError:
    """Whom it does not let in: the bot, a person it knows too well, or a person whose sign-in is over.

    https://learn.microsoft.com/azure/devops/organizations/accounts/faq-user-and-permissions-management
    """
    if not personal:
        return NotNow("Azure DevOps does not accept Callboard's identity.")
    if "VS403366" in says or "access level" in says:
        return Refused("Your Azure DevOps account has no licence for this: ask an administrator for Basic access.")
    if "TF400813" in says:
        return Refused("You are not a member of the Azure DevOps organisation, or may not do this there: ask an administrator to add you.")
    return SignInNeeded("Azure DevOps does not accept your sign-in any more. Sign in again.")


def _transport_failure(error: Exception) -> requests.RequestException | None:
    """The failure to get an answer at all, out of what the SDK wraps it in."""
    inner = getattr(error, "inner_exception", None)
    for candidate in (error, inner, error.__cause__, error.__context__):
        # A JSON that cannot be read is a RequestException, too, but one with an answer.
        if isinstance(candidate, requests.RequestException) and not isinstance(candidate, requests.exceptions.JSONDecodeError):
            return candidate
    return None


def _unsent(failure: requests.RequestException) -> bool:
    """Whether the request surely never reached the service: no connection came about. In doubt it did."""
    if isinstance(failure, requests.ConnectTimeout):
        return True
    reason = getattr(failure.args[0], "reason", None) if failure.args else None
    # urllib3 blames the proxy for what was lost behind it, too.
    cause = reason.original_error if isinstance(reason, ProxyError) else reason
    refused_by_proxy = type(cause) is OSError and "Tunnel connection failed" in str(cause)
    untrusted = isinstance(cause, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(cause)
    return isinstance(cause, NewConnectionError) or refused_by_proxy or untrusted


def _sentence(error: Exception) -> str:
    """The service's own words, at most 300 characters of their first line."""
    words = str(getattr(error, "message", None) or error).strip().partition("\n")[0][:300]
    return words or "Azure DevOps refused without a reason."


def _kind_of(error: Exception) -> str:
    return str(getattr(error, "type_key", None) or "")


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
