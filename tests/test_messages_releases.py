"""What is said about approvals of classic releases."""

from __future__ import annotations

from dataclasses import replace

from bot.core.approvals import ApprovalState
from bot.core.deciding import Case, Decided
from bot.core.people import Asker
from bot.core.waiting import Waiting, Yours
from bot.messages.approvals import approval_card, waiting_list
from tests.examples import DELIVERY, GRACE, GRACE_ADO, NOW, RELEASE_DONE, RELEASE_PENDING, RELEASE_WAITING, RELEASING, V3
from tests.golden import matches

OPEN = Case(
    RELEASE_WAITING,
    RELEASING.models["diabetes"],
    RELEASING.environments["prod"],
    RELEASE_PENDING,
    DELIVERY,
    Asker("Ada Lovelace", "U0ADA0001"),
    V3,
)


def test_prod_is_asked_for_by_a_release() -> None:
    assert matches("release-approval-open", approval_card(OPEN))
    assert "diabetes version 4 to Prod (release/12)" in waiting_list(Waiting((Yours(OPEN),)), NOW).text


def test_after_the_deployment_it_is_asked_whether_it_may_stay() -> None:
    card = approval_card(replace(OPEN, approval=replace(RELEASE_PENDING, post=True)))

    assert card.blocks[0]["text"]["text"] == "🚦 Is diabetes version 4 fit to stay in Prod?"


def test_a_decision_on_a_release_is_told() -> None:
    step = replace(RELEASE_PENDING.steps[0], state=ApprovalState.APPROVED, actual=GRACE_ADO, comment="Fits", at=NOW)
    approved = replace(RELEASE_PENDING, state=ApprovalState.APPROVED, steps=(step,))

    assert matches(
        "release-approval-approved", approval_card(replace(OPEN, run=RELEASE_DONE, approval=approved, decided=Decided(GRACE.id, "Fits")))
    )
