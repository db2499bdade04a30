"""The benchmarks' own machinery: what they say of their measurements, and that what they send is what the doors expect."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bench.figure import Figure, Goal, table
from bench.load import BadAnswer, latencies, throughput
from bench.processes import family, resident
from bench.requests import RUNS, commands, hooks
from bot.core import events


def test_a_figure_is_its_median_beside_the_floors() -> None:
    figure = Figure("hooks kept", "a second", Goal("ratio", 0.3, at_least=True), rounds=[900, 300, 600], floors=[1000, 3000, 1500])

    document = figure.document()

    assert document["value"] == 600
    assert document["floor"] == 1500
    assert document["ratio"] == 0.4
    assert document["goal"] == "≥ 0.3×"
    assert document["met"] is True


@pytest.mark.parametrize(("goal", "met"), [(Goal("value", 4), True), (Goal("value", 3), False), (Goal("ratio", 1.9), False)])
def test_a_goal_may_be_a_limit(goal: Goal, met: bool) -> None:
    assert Figure("start", "s CPU", goal, rounds=[4.0], floors=[2.0]).met is met


def test_the_table_leaves_out_what_was_not_measured() -> None:
    shown = table(
        [Figure("hooks kept", "a second", Goal("ratio", 0.3, at_least=True), [1234], [2468]), Figure("start", "s", None, [2.345])]
    )

    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()[2:]] == [
        ["hooks kept, a second", "1,234 (1,234–1,234)", "2,468 (2,468–2,468)", "0.50×", "≥ 0.3×", "yes"],
        ["start, s", "2.35 (2.35–2.35)", "", "", "", ""],
    ]


def test_each_hook_is_a_notification_of_its_own_about_one_of_the_runs() -> None:
    request = hooks()
    sent = [request().partition(b"\r\n\r\n") for _ in range(200)]

    assert all(f"Content-Length: {len(body)}\r\n".encode() in head for head, _, body in sent)
    deliveries = [json.loads(body) for _, _, body in sent]
    assert len({delivery["notificationId"] for delivery in deliveries}) == 200
    assert {events.lane(event) for event in map(events.parse, deliveries) if not isinstance(event, events.Ignored)} == {
        f"run:{run}" for run in RUNS
    }


async def test_every_request_is_answered_before_the_next_one_is_sent() -> None:
    request, waiting, most = commands("http://127.0.0.1/response"), 0, 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await request.read()
        waiting -= 1
        return web.Response(text="x" * 100_000)  # it comes in several parts

    async with _served(answer) as port:
        taken = await latencies(port, 0, 5, request)
        await throughput(port, 4, 0.1, request)

    assert len(taken) == 5
    assert most <= 4


async def test_an_answer_other_than_200_is_not_counted() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with _served(refuse) as port:
        with pytest.raises(BadAnswer, match="503"):
            await throughput(port, 2, 5, hooks())
        with pytest.raises(BadAnswer, match="503"):
            await latencies(port, 0, 5, hooks())


def test_a_process_belongs_to_the_family_of_its_parent() -> None:
    assert os.getpid() in family(os.getppid())
    assert resident(os.getpid()) > 1


@asynccontextmanager
async def _served(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
