"""A load generator on bare asyncio, so light that it is not what is measured: prepared bytes over connections that stay open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

Answered = Callable[[], None]


class BadAnswer(Exception):
    """The server did not answer 200."""


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection to a port of this machine, one request at a time; `answered` is called after each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._got = b""
        self._transport: asyncio.Transport | None = None
        self.answered: Answered = _ignore
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        assert self._transport is not None
        self._transport.close()
        self.broken.cancel()

    def send(self, request: bytes) -> None:
        """Send a request; `answered` tells when its answer is there."""
        assert self._transport is not None
        self._transport.write(request)

    async def ask(self, request: bytes) -> float:
        """Seconds from the request to the whole of its answer."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered = lambda: done.set_result(None)
        began = time.perf_counter()
        self.send(request)
        await asyncio.wait({done, self.broken}, return_when=asyncio.FIRST_COMPLETED)
        if self.broken.done():
            await self.broken
        return time.perf_counter() - began

    def data_received(self, data: bytes) -> None:
        """Part of an answer, mostly all of it."""
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        self._got = b""
        if head.startswith(b"HTTP/1.1 200 "):
            self.answered()
        else:
            self._break(BadAnswer(head.partition(b"\r\n")[0].decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server hung up, or we did."""
        self._break(exc or BadAnswer("The server hung up."))

    def _break(self, why: Exception) -> None:
        if not self.broken.done():
            self.broken.set_exception(why)


async def throughput(port: int, connections: int, seconds: float, request: Callable[[], bytes]) -> float:
    """Answers per second, each connection sending its next request as soon as it has been answered."""
    answers = 0

    def next_on(connection: Connection) -> Answered:
        def answered() -> None:
            nonlocal answers
            answers += 1
            connection.send(request())

        return answered

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection(port)) for _ in range(connections)]
        for connection in opened:
            connection.answered = next_on(connection)
            connection.send(request())
        began = time.perf_counter()
        broken, _ = await asyncio.wait({each.broken for each in opened}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in broken:
            await each
        return answers / (time.perf_counter() - began)


async def latencies(port: int, every: float, times: int, request: Callable[[], bytes]) -> Sequence[float]:
    """Milliseconds of each of so many requests, one after the other, with a pause of `every` seconds between them."""
    async with Connection(port) as connection:
        await connection.ask(request())  # the first one opens doors
        taken = []
        for _ in range(times):
            await asyncio.sleep(every)
            taken.append(1000 * await connection.ask(request()))
        return taken


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request as bytes."""
    named = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
    return "\r\n".join([f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]).encode() + body


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def _ignore() -> None:
    """Nobody waits for the answer."""
