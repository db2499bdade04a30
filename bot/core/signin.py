"""What Entra answers when somebody cannot sign in, as sentences that say what to do next. Pure.

https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Why a sign-in did not work, by what can be done about it."""

    CONSENT = "consent"  # nobody has agreed to what the app asks for
    DECLINED = "declined"  # the person said no
    FOREIGN = "foreign"  # a guest, or an account of another organisation
    REVOKED = "revoked"  # the password changed, or an administrator signed the person out
    EXPIRED = "expired"  # not used for too long
    BLOCKED = "blocked"  # the account or the place is not allowed to sign in
    OURS = "ours"  # the app registration or our settings are wrong
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why, as a sentence fit for a person; `again` says whether signing in anew is the way on."""

    kind: Kind
    sentence: str
    again: bool = False


_CODES = {
    65001: Kind.CONSENT,
    90094: Kind.CONSENT,
    90095: Kind.CONSENT,
    65004: Kind.DECLINED,
    50020: Kind.FOREIGN,
    90072: Kind.FOREIGN,
    50173: Kind.REVOKED,
    50133: Kind.REVOKED,
    50078: Kind.EXPIRED,
    70008: Kind.EXPIRED,
    700082: Kind.EXPIRED,
    700084: Kind.EXPIRED,
    50057: Kind.BLOCKED,
    50053: Kind.BLOCKED,
    50076: Kind.BLOCKED,
    50079: Kind.BLOCKED,
    53000: Kind.BLOCKED,
    53003: Kind.BLOCKED,
    7000215: Kind.OURS,
    7000222: Kind.OURS,
    700016: Kind.OURS,
    50011: Kind.OURS,
    70011: Kind.OURS,
}
_AADSTS = re.compile(r"AADSTS(\d+)")


def trouble(error: str, description: str, *, tenant: str, client: str) -> Trouble:
    """What Entra's `error` and `error_description` mean; of the description only its code is used."""
    code = _AADSTS.search(description)
    kind = _CODES.get(int(code[1])) if code else None
    if kind is None:
        kind = {"access_denied": Kind.DECLINED, "invalid_grant": Kind.EXPIRED, "consent_required": Kind.CONSENT}.get(error, Kind.UNKNOWN)
    number = f" (AADSTS{code[1]})" if code else ""
    match kind:
        case Kind.CONSENT:
            address = f"https://login.microsoftonline.com/{tenant}/adminconsent?client_id={client}"
            sentence = f"Your organisation has not agreed to what Callboard asks for. An administrator can do so at {address}"
        case Kind.DECLINED:
            sentence = "You did not agree, so nothing was linked. Begin again in Slack if you want to."
        case Kind.FOREIGN:
            sentence = "This account does not belong to the organisation: guests cannot sign in here. Use your account of the organisation."
        case Kind.REVOKED:
            sentence = "Your sign-in was revoked, by a new password or an administrator. Sign in again."
        case Kind.EXPIRED:
            sentence = "Your sign-in has expired. Sign in again."
        case Kind.BLOCKED:
            sentence = f"Entra does not let this account sign in from here{number}. Ask your administrator."
        case Kind.OURS:
            sentence = f"Callboard's app registration is not set up right{number}. Its owners have to mend it."
        case _:
            sentence = f"Entra did not let you sign in{number}. Try again, and ask your administrator if it stays so."
    return Trouble(kind, sentence, again=kind in {Kind.REVOKED, Kind.EXPIRED})
