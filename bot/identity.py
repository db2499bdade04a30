"""Edge: who people are in Entra, and their tokens for Azure DevOps. The only module that knows msal and holds a person's tokens.

What is kept of a person is encrypted under a key that only the environment has, and bound to that person. Entra gives a new refresh token
with each use of the old one, so one replica at a time refreshes for a person, and what it got is kept before it is used.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import msal
import psycopg
import requests
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msal.exceptions import MsalServiceError

from bot.core.errors import NotNow, Refused, SignInNeeded
from bot.core.people import Account, Person
from bot.core.signin import Kind, Trouble, trouble
from bot.database import Database
from bot.ports import Acting, Hands, Identities
from bot.settings import Entra as Registration
from bot.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

AZURE_DEVOPS = "499b84ac-1321-427f-aa17-267ca6975798"
# Reading approvals and queueing come with build_execute. All else is read as the bot.
SCOPES = [f"{AZURE_DEVOPS}/vso.build_execute", f"{AZURE_DEVOPS}/vso.release_manage"]
LINK_LASTS = timedelta(minutes=10)
EARLY = 120.0  # seconds before its end that a token is renewed
TIMEOUT = 10.0  # seconds for one answer of Entra's
AT_ONCE = 4  # questions to Entra; so many connections of the database, and no more, may have to wait for it
ME_FRESH = 300.0  # seconds that we remember whom Azure DevOps takes somebody for
REMEMBERED = 512  # people
CALLBACK = "/signin/callback"
NO_TENANT = "Entra does not know the tenant that Callboard is set up with. Its owners have to mend ENTRA_TENANT."
STRANGE = "What came back from Entra does not belong to this sign-in. Begin again in Slack."


class Actors(Hands, Protocol):
    """Azure DevOps as the bot, which can also act as anybody whose token it is given."""

    def acting(self, token: Callable[[], str]) -> Hands:
        """The same, as a person; `token` may block, and may raise errors of ours."""
        ...


class SignInFailed(Exception):
    """A sign-in ends here; the message is a sentence fit for a person, who is the Slack user `person` where that is known."""

    def __init__(self, message: str, person: str = "") -> None:
        super().__init__(message)
        self.person = person


class Keys:
    """Encrypts what is kept of a person, and signs links. The first key is used, the others still open what they closed."""

    def __init__(self, keys: str) -> None:
        self._fernets = MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])
        self._signing = [hashlib.sha256(b"callboard sign-in links" + key.strip().encode()).digest() for key in keys.split(",")]

    def close(self, owner: str, content: Mapping[str, Any]) -> bytes:
        """Encrypt something for its owner."""
        return self._fernets.encrypt(json.dumps({"owner": owner, "content": content}).encode())

    def open(self, owner: str, closed: bytes) -> Mapping[str, Any] | None:
        """What was encrypted for this owner; None where it was not, or no key opens it."""
        try:
            opened = json.loads(self._fernets.decrypt(closed))
        except InvalidToken:
            return None
        content: Mapping[str, Any] | None = opened["content"] if opened["owner"] == owner else None
        return content

    def renew(self, closed: bytes) -> bytes:
        """The same under the first key. Raises InvalidToken."""
        return self._fernets.rotate(closed)

    def sign(self, text: str) -> str:
        """What only we can have written under this text."""
        return _signature(self._signing[0], text)

    def signed(self, text: str, signature: str) -> bool:
        """Whether we have written it, under any of the keys: a link outlives a rotation."""
        return any(hmac.compare_digest(_signature(key, text).encode(), signature.encode()) for key in self._signing)


@dataclass(frozen=True, slots=True)
class Linking:
    """Somebody who came back from Entra and has to say that both accounts are theirs; `nonce` tells their browser again."""

    person: str
    account: Account
    nonce: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Linked:
    """Two accounts that are linked now, and the delivery that waited for it."""

    id: str
    person: str
    account: Account
    delivery: str


@dataclass(slots=True)
class _Held:
    """What we know of a person between two questions."""

    account: Account
    token: str = field(default="", repr=False)
    until: float = 0.0
    hands: Hands | None = None
    me: Person | None = None
    me_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ServiceIdentity:
    """`bot.ports.Identities` for teams that cannot let people sign in: everybody works under the bot's own identity.

    Azure DevOps then records the bot; the person stands in the comment and in the audit trail.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def acting(self, _: str) -> Acting:
        """Anybody at work, as the bot."""
        return Acting(self._hands, await self._hands.me())

    async def account(self, _: str) -> Account | None:
        """Nobody is signed in."""
        return None

    async def forget(self, _: str) -> bool:
        """Nobody can be signed out."""
        return False


class EntraIdentities:
    """`bot.ports.Identities`: everybody under their own name. `hands` makes an Azure DevOps out of what gives a token."""

    def __init__(
        self,
        database: Database,
        *,
        tenant: str,
        client: str,
        secret: str,
        keys: Keys,
        redirect: str,
        hands: Callable[[Callable[[], str]], Hands],
        workspace: Callable[[], str],
    ) -> None:
        self._pool = database.pool
        self._tenant = tenant
        self._client = client
        self._secret = secret
        self._keys = keys
        self._redirect = redirect
        self._hands = hands
        self._workspace = workspace
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="entra")
        self._refreshing = asyncio.Semaphore(AT_ONCE)
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def close(self) -> None:
        """Ask nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Acting

    async def acting(self, person: str) -> Acting:
        """The Slack user at work in Azure DevOps. Raises SignInNeeded, Refused (no member, no licence), NotNow."""
        account = await self.account(person)
        if account is None:
            raise SignInNeeded("This is done in Azure DevOps under your own name. Sign in once, and Callboard goes on.")
        held = self._of(person, account)
        await self._fresh(person, held)
        if held.hands is None or held.me is None or held.me_until < time.monotonic():
            held.hands = self._hands(lambda: held.token)  # new ones: hands remember whose they are
            held.me = await held.hands.me()
            held.me_until = time.monotonic() + ME_FRESH
        return Acting(held.hands, held.me, account)

    async def renew(self, person: str) -> bool:
        """Replace the Slack user's token, which Azure DevOps has refused; False where they have none. Raises SignInNeeded, Refused, NotNow.

        A token ends before its time where somebody's password or rights have changed.
        https://learn.microsoft.com/entra/identity/conditional-access/concept-continuous-access-evaluation
        """
        held = self._held.get(person)
        if held is None or not held.token:
            return False
        held.until = 0.0
        await self._fresh(person, held, refused=held.token)
        return True

    async def account(self, person: str) -> Account | None:
        """The account that the Slack user is signed in with."""
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                "select tenant, oid, name, username, since from account where workspace = %s and person = %s", (self._workspace(), person)
            )
            row = await asked.fetchone()
        return Account(*row) if row else None

    async def forget(self, person: str) -> bool:
        """Sign the Slack user out; False where they were not signed in."""
        self._held.pop(person, None)
        async with self._pool.connection() as connection:
            gone = await connection.execute("delete from account where workspace = %s and person = %s", (self._workspace(), person))
        return gone.rowcount > 0

    async def _fresh(self, person: str, held: _Held, *, refused: str = "") -> None:
        """See to it that `held` has a token that is good for a while, and is not the refused one. Raises SignInNeeded, Refused, NotNow."""
        async with held.lock:
            if held.until > time.monotonic() + EARLY:
                return
            async with self._refreshing, self._pool.connection() as connection, connection.transaction():
                # The row's lock: another replica may be refreshing.
                asked = await connection.execute(
                    "select tokens from account where workspace = %s and person = %s for update", (self._workspace(), person)
                )
                row = await asked.fetchone()
                kept = self._keys.open(self._owner(person), row[0]) if row else None
                if kept is None:
                    raise SignInNeeded("Callboard can no longer read your sign-in. Sign in again.")
                said, changed = await self._ask(lambda: self._silently(str(kept["cache"]), refused))
                if changed is not None:
                    closed = self._keys.close(self._owner(person), {"cache": changed})
                    await connection.execute(
                        "update account set tokens = %s where workspace = %s and person = %s", (closed, self._workspace(), person)
                    )
            if "access_token" not in said:
                raise self._refused(said)
            held.token, held.until = said["access_token"], time.monotonic() + float(said.get("expires_in", 0))

    def _silently(self, cache: str, refused: str) -> tuple[Mapping[str, Any], str | None]:
        """A token out of the cache (another replica may have left one), or for its refresh token; and the cache where it changed."""
        kept = msal.SerializableTokenCache()
        kept.deserialize(cache)
        app = self._app(kept)
        accounts = app.get_accounts()
        said = app.acquire_token_silent_with_error(SCOPES, accounts[0]) if accounts else None
        if said and refused and said.get("access_token") == refused:
            said = app.acquire_token_silent_with_error(SCOPES, accounts[0], force_refresh=True)
        return said or {"error": "invalid_grant"}, kept.serialize() if kept.has_state_changed else None

    def _refused(self, said: Mapping[str, Any]) -> SignInNeeded | NotNow | Refused:
        found = self._trouble(said)
        if found.kind is Kind.AWAY:
            return NotNow(found.sentence)
        return SignInNeeded(found.sentence) if found.again else Refused(found.sentence)

    # Signing in

    async def link(self, person: str, delivery: str) -> str:
        """The address at Entra where the person signs in; it works once and for ten minutes. Raises NotNow.

        Whoever presses twice gets the same one again, and what was asked for last goes on.
        """
        known = await self._known_link(person, delivery)
        if known is not None:
            return known
        key, expires = secrets.token_urlsafe(16), int(time.time() + LINK_LASTS.total_seconds())
        state = f"{key}.{expires}.{self._keys.sign(self._signed(key, expires, person))}"
        flow = await self._ask(
            lambda: self._app(None).initiate_auth_code_flow(
                SCOPES, redirect_uri=self._redirect, state=state, prompt="select_account", response_mode="form_post"
            )
        )
        closed = self._keys.close(self._owner(person), {"flow": flow})
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                "delete from signin where workspace = %s and person = %s and state = 'open'", (self._workspace(), person)
            )
            await connection.execute(
                "insert into signin (id, workspace, person, delivery, state, secret) values (%s, %s, %s, %s, 'open', %s)",
                (_hash(key), self._workspace(), person, delivery, closed),
            )
        return str(flow["auth_uri"])

    async def _known_link(self, person: str, delivery: str) -> str | None:
        """A link that the person has been given lately and not used, now for this delivery."""
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                """
                update signin set delivery = %s where workspace = %s and person = %s and state = 'open' and created > now() - %s::interval
                returning secret
                """,
                (delivery, self._workspace(), person, LINK_LASTS / 2),
            )
            row = await asked.fetchone()
        kept = self._keys.open(self._owner(person), row[0]) if row else None
        return str(kept["flow"]["auth_uri"]) if kept is not None else None

    async def come_back(self, answer: Mapping[str, str]) -> Linking:
        """Somebody comes back from Entra with this form. Raises SignInFailed, NotNow."""
        row_id, person, secret = await self._taken(answer.get("state", ""))
        if "error" in answer:
            raise SignInFailed(self._trouble(answer).sentence, person)
        kept = self._keys.open(self._owner(person), secret)
        if kept is None or not answer.get("code"):
            raise SignInFailed("Entra sent nothing that could be used. Begin again in Slack.", person)
        cache = msal.SerializableTokenCache()
        try:
            said = await self._ask(lambda: self._app(cache).acquire_token_by_auth_code_flow(dict(kept["flow"]), dict(answer)))
        except (ValueError, SignInNeeded):  # what came back does not belong to what went out
            raise SignInFailed(STRANGE, person) from None
        if "error" in said:
            raise SignInFailed(self._trouble(said).sentence, person)
        claims = said["id_token_claims"]
        account = Account(claims["tid"], claims["oid"], claims.get("name") or "somebody", claims.get("preferred_username") or "")
        nonce = secrets.token_urlsafe(24)
        closed = self._keys.close(self._owner(person), {"cache": cache.serialize(), "account": _told(account)})
        async with self._pool.connection() as connection:
            await connection.execute("update signin set secret = %s, proof = %s where id = %s", (closed, _hash(nonce), row_id))
        return Linking(person, account, nonce)

    async def confirm(self, nonce: str) -> Linked:
        """The person says that both accounts are theirs: link them, once. Raises SignInFailed."""
        async with self._pool.connection() as connection, connection.transaction():
            asked = await connection.execute(
                """
                update signin set state = 'done' where proof = %s and state = 'back' and created > now() - %s::interval
                returning id, workspace, person, delivery, secret
                """,
                (_hash(nonce), LINK_LASTS),
            )
            row = await asked.fetchone()
            if row is None or not nonce:
                raise SignInFailed("This sign-in is over: it was confirmed, cancelled, or took too long. Begin again in Slack.")
            key, workspace, person, delivery, secret = row
            kept = self._keys.open(f"{workspace}/{person}", secret)
            if kept is None:
                raise SignInFailed("This sign-in cannot be read any more. Begin again in Slack.")
            account = Account(**kept["account"])
            tokens = self._keys.close(f"{workspace}/{person}", {"cache": kept["cache"]})
            try:
                async with connection.transaction():
                    await connection.execute(
                        """
                        insert into account (workspace, person, tenant, oid, name, username, tokens) values (%s, %s, %s, %s, %s, %s, %s)
                        on conflict (workspace, person) do update set tenant = excluded.tenant, oid = excluded.oid, name = excluded.name,
                            username = excluded.username, tokens = excluded.tokens, since = now()
                        """,
                        (workspace, person, account.tenant, account.oid, account.name, account.username, tokens),
                    )
            except psycopg.errors.UniqueViolation:
                taken = f"{account.username} is linked to another Slack account. Give `signout` there first, or use an account of your own."
                raise SignInFailed(taken, person) from None
            await connection.execute("update signin set secret = '' where id = %s", (key,))
        self._held.pop(person, None)
        return Linked(key, person, account, delivery)

    async def give_up(self, nonce: str) -> None:
        """The person says that this is not right: forget what came back."""
        async with self._pool.connection() as connection:
            await connection.execute("delete from signin where proof = %s and state = 'back'", (_hash(nonce),))

    async def tidy(self) -> None:
        """Forget sign-ins that were not finished, and those that were."""
        async with self._pool.connection() as connection:
            await connection.execute("delete from signin where created < now() - %s::interval", (LINK_LASTS,))

    async def _taken(self, state: str) -> tuple[str, str, bytes]:
        """The sign-in that a state belongs to, which nobody can come back to again. Raises SignInFailed."""
        stale = SignInFailed("This sign-in is unknown, was used before, or is older than ten minutes. Begin again in Slack.")
        match state.split("."):
            case [id, expires, signature] if expires.isascii() and expires.isdigit() and len(expires) < 12:
                pass
            case _:
                raise stale
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                """
                update signin set state = 'back' where id = %s and workspace = %s and state = 'open' and created > now() - %s::interval
                returning id, person, secret
                """,
                (_hash(id), self._workspace(), LINK_LASTS),
            )
            row = await asked.fetchone()
        if row is None or int(expires) < time.time():
            raise stale
        if not self._keys.signed(self._signed(id, int(expires), row[1]), signature):
            raise stale
        return row[0], row[1], row[2]

    # msal

    def _app(self, cache: msal.SerializableTokenCache | None) -> Any:
        return _app(self._tenant, self._client, self._secret, cache)

    async def _ask(self, call: Callable[[], T]) -> T:
        """Ask msal, off the event loop. Raises what `_asked` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _asked, call)

    def _trouble(self, said: Mapping[str, Any]) -> Trouble:
        found = trouble(str(said.get("error", "")), str(said.get("error_description", "")), tenant=self._tenant, client=self._client)
        # Of what came, only the number: the rest may be anybody's words.
        log.log(
            logging.ERROR if found.kind is Kind.OURS else logging.WARNING, "A sign-in did not work: %s, AADSTS%s", found.kind, found.code
        )
        return found

    def _of(self, person: str, account: Account) -> _Held:
        """What we know of them, as long as it is the same account: they may have signed in anew, on another replica."""
        held = self._held.get(person)
        if held is None or (held.account, held.account.since) != (account, account.since):
            held = self._held[person] = _Held(account)
        self._held.move_to_end(person)
        while len(self._held) > REMEMBERED:
            self._held.popitem(last=False)
        return held

    def _owner(self, person: str) -> str:
        return f"{self._workspace()}/{person}"

    def _signed(self, id: str, expires: int, person: str) -> str:
        return f"{id}|{expires}|{self._workspace()}|{person}"


def _signature(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:40]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _told(account: Account) -> dict[str, str]:
    return {"tenant": account.tenant, "oid": account.oid, "name": account.name, "username": account.username}


def _app(tenant: str, client: str, secret: str, cache: msal.SerializableTokenCache | None) -> Any:
    authority = f"https://login.microsoftonline.com/{tenant}"
    return msal.ConfidentialClientApplication(client, authority=authority, client_credential=secret, token_cache=cache, timeout=TIMEOUT)


def _asked(call: Callable[[], T]) -> T:
    """What msal says. Raises NotNow where Entra is away, Refused where our tenant is unknown, SignInNeeded where it speaks of another."""
    try:
        return call()
    except (requests.RequestException, MsalServiceError) as error:
        log.warning("Entra does not answer: %s", type(error).__name__)
        raise NotNow("Entra does not answer.") from None
    except msal.IdTokenError:  # its text has what Entra says of the person
        log.error("Entra's answer has an id token that is none of ours")  # noqa: TRY400
        raise SignInNeeded(STRANGE) from None
    except ValueError as error:
        if "authority" not in str(error):  # so msal begins where it finds no tenant
            raise
        log.error("Entra does not know the tenant in ENTRA_TENANT")  # noqa: TRY400
        raise Refused(NO_TENANT) from None


async def look(entra: Registration) -> str | None:
    """What is wrong with the app registration, as far as Entra tells without anybody signing in. Raises NotNow, Refused."""
    scope = f"{AZURE_DEVOPS}/.default"  # what an app can ask for by itself

    def ask() -> Mapping[str, Any]:
        app = _app(entra.tenant, entra.client, entra.secret.get_secret_value(), None)
        said: Mapping[str, Any] = app.acquire_token_for_client([scope])
        return said

    said = await asyncio.to_thread(_asked, ask)
    found = trouble(str(said.get("error", "")), str(said.get("error_description", "")), tenant=entra.tenant, client=entra.client)
    return found.sentence if "access_token" not in said and found.kind in {Kind.OURS, Kind.AWAY} else None


async def rotate(database: Database, keys: Keys) -> tuple[int, int]:
    """Encrypt every sign-in under the first key; how many were, and how many no key opens."""
    done = lost = 0
    async with database.pool.connection() as connection, connection.transaction():
        rows = await (await connection.execute("select workspace, person, tokens from account for update")).fetchall()
        for workspace, person, tokens in rows:
            try:
                renewed = keys.renew(tokens)
            except InvalidToken:
                lost += 1
                continue
            theirs = "update account set tokens = %s where workspace = %s and person = %s"
            await connection.execute(theirs, (renewed, workspace, person))
            done += 1
    return done, lost


def identities(settings: Settings, database: Database, pipelines: Actors, workspace: Callable[[], str]) -> Identities:
    """The arrangement that the team has chosen: everybody under their own name, or all as the bot, loudly."""
    entra = settings.entra
    if entra is None:
        log.warning("act_as = service: Azure DevOps will record Callboard, and not the people who decide")
        return ServiceIdentity(pipelines)
    return EntraIdentities(
        database,
        tenant=entra.tenant,
        client=entra.client,
        secret=entra.secret.get_secret_value(),
        keys=Keys(entra.keys.get_secret_value()),
        redirect=settings.environment.CALLBOARD_URL.rstrip("/") + CALLBACK,
        hands=pipelines.acting,
        workspace=workspace,
    )
