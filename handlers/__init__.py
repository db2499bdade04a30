"""What the bot does, one module per feature: this is the table of contents.

Features never import each other. What several of them do alike is in `showing`, `looking`, `waiting`, `judging`, `guarding`, `once` and
`ordering`, which answer to nothing themselves.
"""

from __future__ import annotations

from bot.routing import Router
from handlers import approvals, audit, barriers, help, home, models, promotion, reminders, runs, signin, steering, training  # noqa: A004 the feature's own name

router = Router().include(
    runs.router,
    approvals.router,
    training.router,
    promotion.router,
    models.router,
    steering.router,
    barriers.router,
    audit.router,
    reminders.router,
    home.router,
    signin.router,
)
router.include(help.about(router))
