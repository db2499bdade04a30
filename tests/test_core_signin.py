"""What Entra answers, as sentences that say what to do next."""

from __future__ import annotations

import pytest

from bot.core.signin import Kind, trouble


@pytest.mark.parametrize(
    ("error", "description", "kind", "sentence", "again"),
    [
        ("invalid_grant", "AADSTS65001: The user has not consented.", Kind.CONSENT, "adminconsent?client_id=app", True),
        ("access_denied", "AADSTS90094: An administrator has to.", Kind.CONSENT, "An administrator can do so at https://login", True),
        ("access_denied", "AADSTS65004: User declined to consent.", Kind.DECLINED, "You did not agree", False),
        ("access_denied", "the user canceled", Kind.DECLINED, "Begin again in Slack", False),
        ("access_denied", "AADSTS50020: User account does not exist in tenant.", Kind.FOREIGN, "guests cannot sign in here", False),
        ("invalid_grant", "AADSTS50173: The provided grant has been revoked.", Kind.REVOKED, "was revoked", True),
        ("invalid_grant", "AADSTS700082: The refresh token has expired.", Kind.EXPIRED, "has expired", True),
        ("invalid_grant", "", Kind.EXPIRED, "Sign in again", True),
        ("invalid_grant", "AADSTS53003: Blocked by Conditional Access.", Kind.BLOCKED, "place or device (AADSTS53003)", False),
        ("interaction_required", "AADSTS50076: You must use multi-factor authentication.", Kind.PROOF, "(AADSTS50076). Sign in", True),
        ("interaction_required", "", Kind.PROOF, "prove once more", True),
        ("invalid_grant", "AADSTS50057: The user account is disabled.", Kind.DISABLED, "switched off or locked", False),
        ("invalid_client", "AADSTS7000215: Invalid client secret.", Kind.OURS, "Its owners have to mend it", False),
        ("consent_required", "", Kind.CONSENT, "has not agreed", True),
        ("server_error", "AADSTS90033: <b>transient</b>", Kind.AWAY, "(AADSTS90033). Try again", False),
        ("temporarily_unavailable", "", Kind.AWAY, "trouble of its own. Try again", False),
        ("odd", "AADSTS99999: <b>odd</b>", Kind.UNKNOWN, "did not let you sign in (AADSTS99999)", False),
        ("", "", Kind.UNKNOWN, "did not let you sign in.", False),
    ],
)
def test_each_way_of_not_getting_in_has_its_own_sentence(error: str, description: str, kind: Kind, sentence: str, again: bool) -> None:
    found = trouble(error, description, tenant="tenant", client="app")

    assert (found.kind, found.again) == (kind, again)
    assert sentence in found.sentence
    assert "<b>" not in found.sentence
