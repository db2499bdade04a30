"""Signing in, as people read it."""

from __future__ import annotations

from dataclasses import replace

from bot.core.errors import Refused
from bot.core.people import Account
from bot.messages.barriers import broken_card, glass_card
from bot.messages.offers import Deed, steer_offer
from bot.messages.signin import sign_in_card, who_card
from tests.examples import ACCOUNTS, DIABETES, FAILED, GRACE, GRACE_ADO, NOW, SUCCEEDED, TEAM, TRAINING, V3, V4, WAITING
from tests.golden import matches

PROD = TEAM.environments["prod"]


def test_who_has_to_sign_in_gets_a_button_of_their_own() -> None:
    assert matches("sign-in", sign_in_card("This is done under your own name. Sign in once.", "https://login.microsoftonline.com/x"))


def test_who_somebody_is_is_told_in_all_three_places() -> None:
    assert matches("whoami", who_card(GRACE, replace(ACCOUNTS[GRACE.id], since=NOW), GRACE_ADO))
    assert matches("whoami-refused", who_card(GRACE, ACCOUNTS[GRACE.id], Refused("You are not a member of <the organisation>.")))
    hostile = who_card(GRACE, Account("t", "o", "<!channel>", "<@U1>"), GRACE_ADO)
    assert "<!channel>" not in str(hostile.blocks) + hostile.text


def test_breaking_the_glass_is_asked_and_announced() -> None:
    assert matches("glass-asked", glass_card("op", WAITING, PROD, "U0GRACE01", "Prod is <down>"))
    assert matches("glass-broken", broken_card(WAITING, PROD, ("U0GRACE01", "U0RADIA01"), "Prod is <down>", NOW))


def test_steering_is_offered_with_its_facts() -> None:
    assert matches("cancel-offer", steer_offer("op", Deed("cancel", TRAINING, DIABETES)))
    assert matches("rerun-offer", steer_offer("op", Deed("rerun", FAILED, DIABETES, "Train")))
    assert matches("rollback-offer", steer_offer("op", Deed("rollback", SUCCEEDED, DIABETES, "Prod - Deploy on AKS", V3, V4)))
    assert "what it served before" in steer_offer("op", Deed("rollback", SUCCEEDED, DIABETES)).text
