"""What can go wrong with the outside world, named by what the caller can do about it."""

from __future__ import annotations


class OutsideError(Exception):
    """The outside world did not do what we asked; the message is a sentence fit for a person."""


class Gone(OutsideError):
    """The thing does not exist (any more): tell the person."""


class Refused(OutsideError):
    """The service understood and said no: tell the person the reason it gave."""


class SignInNeeded(OutsideError):
    """This is done under the person's own name, and they have to sign in (again) first; the message says why."""


class NotNow(OutsideError):
    """The service cannot answer at present: the inbox tries again.

    `after` is the time to wait, in seconds, where the service named one.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Uncertain(OutsideError):
    """A write went out and its answer was lost: look for its token before doing anything else."""
