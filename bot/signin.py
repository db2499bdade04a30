"""The pages of signing in: where Entra sends people back to, and where they say that both accounts are theirs.

No secret is ever written to a log or a page: codes and states come in a form, and what tells a browser again is in a cookie.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from html import escape

import psycopg
from aiohttp import web
from psycopg_pool import PoolTimeout

from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import OutsideError
from bot.identity import CALLBACK, EntraIdentities, Linked, SignInFailed
from bot.ports import Chat, Store

log = logging.getLogger(__name__)

CONFIRM = "/signin/confirm"
COOKIE = "callboard-signin"
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: light-dark(#f4f5f7, #1b1d21); color: light-dark(#1d1c1d, #e8e8e8); }
main { box-sizing: border-box; width: min(28rem, calc(100vw - 2rem)); padding: 2rem; border-radius: 12px;
  background: light-dark(#fff, #26292e); box-shadow: 0 1px 3px rgb(0 0 0 / .2); }
h1 { margin: 0 0 1rem; font-size: 1.3rem; }
dl { margin: 1.25rem 0; display: grid; grid-template-columns: auto 1fr; gap: .5rem 1rem; }
dt { color: light-dark(#616061, #ababad); }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
small { font-weight: 400; color: light-dark(#616061, #ababad); display: block; }
form { display: flex; gap: .75rem; margin-top: 1.5rem; }
button { font: inherit; font-weight: 600; padding: .55rem 1.1rem; border-radius: 8px; border: 1px solid light-dark(#c9cacc, #565a60);
  background: none; color: inherit; cursor: pointer; }
button.yes { background: #1d3a5f; border-color: #1d3a5f; color: #fff; }
button:focus-visible { outline: 3px solid #4a90d9; outline-offset: 2px; }
"""
_POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class SignInPages:
    """Serves the pages. `linked` is told of two accounts that have been linked; `secure`: the bot is reached over TLS.

    `workspace` is what Slack calls the workspace.
    """

    def __init__(
        self,
        identities: EntraIdentities,
        chat: Chat,
        store: Store,
        *,
        linked: Callable[[Linked], Awaitable[None]],
        workspace: Callable[[], str],
        secure: bool,
    ) -> None:
        self._identities = identities
        self._chat = chat
        self._store = store
        self._linked = linked
        self._workspace = workspace
        self._secure = secure

    def add_to(self, app: web.Application) -> None:
        """Take the addresses."""
        app.router.add_get(CALLBACK, self._lost)
        app.router.add_post(CALLBACK, _calmly(self._back))
        app.router.add_post(CONFIRM, _calmly(self._confirmed))
        app.router.add_get("/signin/style.css", _style)

    async def _lost(self, _: web.Request) -> web.Response:
        """Somebody opened the address by hand."""
        return page("Begin in Slack", "<p>Signing in begins in Slack: press the button there.</p>", status=404)

    async def _back(self, request: web.Request) -> web.Response:
        """Somebody comes back from Entra."""
        form = await _form(request)
        try:
            linking = await self._identities.come_back(form)
            member = await self._chat.member(linking.person)
        except SignInFailed as failed:
            await self._store.record(Entry(failed.person, "sign in", "signin", Denied(str(failed))))
            return page("Not signed in", f"<p>{escape(str(failed))}</p>", status=400)
        except OutsideError as error:
            return page("Not now", f"<p>{escape(str(error))} Begin again in Slack in a while.</p>", status=503)
        account = linking.account
        shown = page(
            "Are both of these you?",
            "<p>Callboard will do what you ask for in Slack under this name in Azure DevOps. If somebody sent you here, cancel.</p>"
            f"<dl><dt>Slack</dt><dd>{escape(member.name)}<small>{escape(member.email or '')}</small>"
            f"<small>in {escape(self._workspace())}</small></dd>"
            f"<dt>Entra</dt><dd>{escape(account.name)}<small>{escape(account.username)}</small></dd></dl>"
            f'<form method="post" action="{CONFIRM}"><button class="yes" name="answer" value="yes">Link them</button>'
            '<button name="answer" value="no">Cancel</button></form>',
        )
        shown.set_cookie(COOKIE, linking.nonce, max_age=600, path="/signin", httponly=True, samesite="Lax", secure=self._secure)
        return shown

    async def _confirmed(self, request: web.Request) -> web.Response:
        """The person says yes or no, in the browser that came back."""
        nonce = request.cookies.get(COOKIE, "")
        if (await _form(request)).get("answer") != "yes":
            await self._identities.give_up(nonce)
            return _done("Cancelled", "<p>Nothing was linked. You can close this page.</p>")
        try:
            linked = await self._identities.confirm(nonce)
        except SignInFailed as failed:
            await self._identities.give_up(nonce)
            await self._store.record(Entry(failed.person, "sign in", "signin", Denied(str(failed))))
            return page("Not signed in", f"<p>{escape(str(failed))}</p>", status=400)
        await self._store.record(Entry(linked.person, "sign in", "signin", Allowed(), account=linked.account))
        await self._linked(linked)
        as_whom = f"<p>As <b>{escape(linked.account.name)}</b>. What you asked for in Slack goes on by itself; you can close this page.</p>"
        return _done("You are signed in", as_whom)


def _calmly(answer: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The same, with a page where the form cannot be read, or the database is away."""

    async def answered(request: web.Request) -> web.Response:
        try:
            return await answer(request)
        except _Unreadable:
            return page("Not signed in", "<p>Nothing that could be read was sent. Begin again in Slack.</p>", status=400)
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("A page waits for the database: %s", type(error).__name__)
            sentence = (
                "Callboard cannot reach its database. Begin again in Slack in a while; <b>whoami</b> there says whether you are signed in."
            )
            return page("Not now", f"<p>{sentence}</p>", status=503)

    return answered


class _Unreadable(Exception):
    """What was sent is no form."""


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form. Raises _Unreadable."""
    try:
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (ValueError, LookupError) as error:  # neither boundaries nor character sets can be trusted
        raise _Unreadable from error


def page(title: str, body: str, *, status: int = 200) -> web.Response:
    """One page; `body` is HTML."""
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(title)} · Callboard</title><link rel="stylesheet" href="/signin/style.css"></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def _done(title: str, body: str) -> web.Response:
    shown = page(title, body)
    shown.del_cookie(COOKIE, path="/signin")
    return shown


async def _style(_: web.Request) -> web.Response:
    return web.Response(text=STYLE, content_type="text/css", headers=_HEADERS | {"Cache-Control": "max-age=3600"})
