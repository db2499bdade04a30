"""Somebody at their browser who signs in, for the story and the tests: opens links, presses buttons, sees what a person sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import aiohttp

from sandbox.names import HOSTS, Character
from sandbox.world import World

REDIRECTS = 10


@dataclass
class Form:
    """A form of a page: where it goes, what is hidden in it, and its buttons (name, value, text)."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Page:
    """What a browser shows."""

    status: int
    url: str
    html: str
    text: str
    forms: list[Form]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.words: list[str] = []
        self._button: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "form":
                self.forms.append(Form(given.get("action", "")))
            case "input" if self.forms and given.get("type") == "hidden":
                self.forms[-1].fields[given["name"]] = given.get("value", "")
            case "button" if self.forms:
                self._button = (given.get("name", ""), given.get("value", ""))
                self.forms[-1].buttons.append((*self._button, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())
            if self._button is not None:
                name, value, text = self.forms[-1].buttons[-1]
                self.forms[-1].buttons[-1] = (name, value, f"{text} {data.strip()}".strip())


class Browser:
    """One person's browser: it keeps cookies, and finds the sandbox's pages on their port, as the links in its Slack do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def opens(self, link: str) -> Page:
        """Follow a link."""
        return await self._seen("GET", link, None)

    async def presses(self, page: Page, button: str) -> Page:
        """Press the first button with this in its text. Raises LookupError."""
        for form in page.forms:
            for name, value, text in form.buttons:
                if button in text:
                    return await self._seen("POST", urljoin(page.url, form.action), form.fields | ({name: value} if name else {}))
        raise LookupError(f"No button {button!r} is on the page: {page.text}")

    async def signs_in(self, link: str, who: Character, *, accept: bool = True) -> Page:
        """From the link to the page that the app shows when one comes back: pick the account, agree if asked, go on."""
        page = await self.presses(await self.opens(link), who.name)
        if "Permissions requested" in page.text:
            page = await self.presses(page, "Accept" if accept else "Cancel")
        return await self.presses(page, "Continue") if "One moment" in page.text else page

    async def _seen(self, method: str, url: str, form: dict[str, str] | None) -> Page:
        for _ in range(REDIRECTS):
            async with self._session.request(
                method, self._local(url), data=form, headers={"Accept": "text/html"}, allow_redirects=False
            ) as answer:
                if answer.status in {301, 302, 303} and "Location" in answer.headers:
                    method, url, form = "GET", urljoin(str(answer.url), answer.headers["Location"]), None
                    continue
                html = await answer.text()
            reader = _Reader()
            reader.feed(html)
            return Page(answer.status, str(answer.url), html, " ".join(reader.words), reader.forms)
        raise LookupError(f"{url} leads in circles.")

    def _local(self, url: str) -> str:
        """Where the address is on this machine. Raises LookupError."""
        parts = urlsplit(url)
        if parts.hostname in HOSTS:
            return f"{self._world.page_url}/{parts.hostname}{parts.path}{'?' + parts.query if parts.query else ''}"
        if parts.hostname not in {"127.0.0.1", "localhost"}:
            raise LookupError(f"{url} is not of this world.")
        return url
