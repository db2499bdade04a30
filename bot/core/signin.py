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
    PROOF = "proof"  # the organisation wants more than a password, or wants it anew
    BLOCKED = "blocked"  # the place or the device is not allowed to sign in
    DISABLED = "disabled"  # the account is switched off or locked
    AWAY = "away"  # Entra itself has trouble
    OURS = "ours"  # the app registration or our settings are wrong
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why, as a sentence fit for a person; `code` is Entra's number, where it gave one."""

    kind: Kind
    sentence: str
    code: int | None = None

    @property
    def again(self) -> bool:
        """Whether signing in anew, in a browser, is the way on."""
        return self.kind in {Kind.CONSENT, Kind.REVOKED, Kind.EXPIRED, Kind.PROOF}


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
    50072: Kind.PROOF,
    50074: Kind.PROOF,
    50076: Kind.PROOF,
    50079: Kind.PROOF,
    50158: Kind.PROOF,
    50053: Kind.DISABLED,
    50057: Kind.DISABLED,
    53000: Kind.BLOCKED,
    53003: Kind.BLOCKED,
    7000215: Kind.OURS,
    7000222: Kind.OURS,
    700016: Kind.OURS,
    500011: Kind.OURS,
    50011: Kind.OURS,
    70011: Kind.OURS,
    90033: Kind.AWAY,
}
_ERRORS = {
    "access_denied": Kind.DECLINED,
    "invalid_grant": Kind.EXPIRED,
    "consent_required": Kind.CONSENT,
    "interaction_required": Kind.PROOF,
    "login_required": Kind.PROOF,
    "server_error": Kind.AWAY,
    "temporarily_unavailable": Kind.AWAY,
}
_AADSTS = re.compile(r"AADSTS([0-9]{1,9})")


def trouble(error: str, description: str, *, tenant: str, client: str) -> Trouble:
    """What Entra's `error` and `error_description` mean; of the description only its code is used."""
    found = _AADSTS.search(description)
    code = int(found[1]) if found else None
    kind = _CODES.get(code or 0) or _ERRORS.get(error, Kind.UNKNOWN)
    number = f" (AADSTS{code})" if code else ""
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
        case Kind.PROOF:
            sentence = f"Your organisation wants you to prove once more that it is you{number}. Sign in again."
        case Kind.DISABLED:
            sentence = f"This account is switched off or locked in Entra{number}. Ask your administrator."
        case Kind.AWAY:
            sentence = f"Entra has trouble of its own{number}. Try again in a while."
        case Kind.BLOCKED:
            sentence = f"Your organisation's rules do not let you sign in from this place or device{number}. Ask your administrator."
        case Kind.OURS:
            sentence = f"Callboard's app registration is not set up right{number}. Its owners have to mend it."
        case _:
            sentence = f"Entra did not let you sign in{number}. Try again, and ask your administrator if it stays so."
    return Trouble(kind, sentence, code)
