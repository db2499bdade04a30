"""`/mlops audit`: read by members, refused to guests, handed out as CSV."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import Uncertain
from bot.messages.kit import Message, Reply
from bot.ports import File
from bot.routing import Click, Request, Usage
from handlers.audit import audit, csv_wanted
from tests.examples import ACCOUNTS, ADA, ALAN, CHANNEL, ELSEWHERE, GRACE, GUEST
from tests.fakes import World

ENTRIES = [
    Entry(ADA.id, "retrain", "model/diabetes", Allowed(), model="diabetes"),
    Entry(ADA.id, "retry", "run/480/stage/train/1", Allowed()),
    Entry(ALAN.id, "approved", "run/480/approval/a1", Denied("Ask the release managers."), model="diabetes"),
    Entry(GRACE.id, "approved", "release/480/approval/7", Allowed(), why="Fits", model="churn"),
    Entry(GRACE.id, "retry", "run/4800/stage/train/1", Allowed(), model="moon"),
    Entry(ALAN.id, "lock", "environment/prod", Allowed(), why="The audit"),
]


@pytest.fixture
def world(world: World) -> World:
    """The same, with something to read."""
    world.store.audit = list(ENTRIES)
    return world


def asking(*words: str, person: str = ADA.id, channel: str = CHANNEL) -> Request:
    return Request("r1", person, channel, "audit", words)


def pressed(value: str, person: str = ADA.id) -> Click:
    return Click("c1", person, CHANNEL, "audit_csv", value)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


def shown(reply: Reply) -> list[str]:
    """What the lines are about, in their order."""
    assert isinstance(reply, Message)
    lines = [block["text"]["text"] for block in reply.blocks if block["type"] == "section"][1:]
    return [line.split("`")[1] for line in lines]


@pytest.mark.parametrize(
    ("words", "subjects"),
    [
        ((), ["run/480/approval/a1", "model/diabetes"]),
        (("480",), ["run/480/approval/a1", "run/480/stage/train/1"]),
        (("release/480",), ["release/480/approval/7"]),
        (("churn",), ["release/480/approval/7"]),
        (("moon",), ["run/4800/stage/train/1"]),
        (("environment/prod",), ["environment/prod"]),
        ((f"<@{GRACE.id}|grace>",), ["run/4800/stage/train/1", "release/480/approval/7"]),
    ],
)
async def test_members_read_the_newest_lines_first(world: World, words: tuple[str, ...], subjects: list[str]) -> None:
    assert shown(await audit(world.bot, asking(*words))) == subjects
    assert world.store.audit == ENTRIES


async def test_a_channel_may_have_several_models_whose_lines_are_one_list(world: World) -> None:
    both = {name: replace(model, channel=CHANNEL) for name, model in world.team.models.items()}
    world.team = replace(world.team, models=both)

    reply = await audit(world.bot, asking())

    assert shown(reply) == ["release/480/approval/7", "run/480/approval/a1", "model/diabetes"]


async def test_a_guest_may_not_read_it_and_that_is_on_record(world: World) -> None:
    reply = await audit(world.bot, asking("480", person=GUEST.id))

    assert said(reply).startswith("🔒 Guests of the workspace may not do this.")
    last = world.store.audit[-1]
    assert (last.person, last.action, last.subject) == (GUEST.id, "read the audit trail", "audit/run/480")
    assert isinstance(last.decision, Denied)


async def test_words_that_make_no_sense_are_said(world: World) -> None:
    with pytest.raises(Usage, match="Name a run by its number"):
        await audit(world.bot, asking("@ada"))


async def test_where_there_is_nothing_that_is_said(world: World) -> None:
    assert said(await audit(world.bot, asking("481"))) == "The audit trail has nothing about run `481`."
    assert said(await audit(world.bot, asking("mars"))).startswith("There is no model `mars`.")
    assert said(await audit(world.bot, asking(channel=ELSEWHERE))).startswith("No model belongs to this channel.")


async def test_the_csv_has_all_lines_and_goes_to_the_person_alone(world: World) -> None:
    world.store.audit = ENTRIES * 20

    reply = await csv_wanted(world.bot, pressed("run/480"))

    ((person, file),) = world.chat.handed
    rows = list(csv.DictReader(file.content.decode("utf-8-sig").splitlines()))
    assert (person, file.name, len(rows), rows[0]["id"]) == (ADA.id, "audit-run-480.csv", 40, "117")
    assert isinstance(reply, Message)
    assert "A CSV of 40 lines is in your direct messages with Callboard." in str(reply.blocks)
    assert world.store.audit[-1] == Entry(ADA.id, "export the audit trail", "audit/run/480", Allowed(), account=ACCOUNTS[ADA.id])


async def test_a_guest_gets_no_csv(world: World) -> None:
    reply = await csv_wanted(world.bot, pressed("run/480", GUEST.id))

    assert said(reply).startswith("🔒")
    assert world.chat.handed == []
    assert isinstance(world.store.audit[-1].decision, Denied)


async def test_a_button_that_is_none_of_ours_does_nothing(world: World) -> None:
    assert "none of ours" in said(await csv_wanted(world.bot, pressed("planet/9")))
    assert (world.chat.handed, world.store.audit) == ([], ENTRIES)


async def test_a_file_that_may_not_have_arrived_is_the_edge_s_to_say(world: World) -> None:
    world.chat.errors = [Uncertain("Slack's answer was lost.")]

    with pytest.raises(Uncertain):
        await csv_wanted(world.bot, pressed("model/../../etc"))

    await csv_wanted(world.bot, pressed("model/../../etc"))
    assert world.chat.handed == [(ADA.id, File("audit-model-..-..-etc.csv", "audit-model-..-..-etc.csv", world.chat.handed[0][1].content))]
