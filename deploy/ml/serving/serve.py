"""Serves the model beside this file with MLflow's own scoring server: /ping and /health for probes, /invocations for predictions.

HOST and PORT say where to listen. Where SCORING_KEY is set, /invocations wants it as a bearer token: an address that nothing else guards.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import uvicorn
from mlflow.pyfunc import scoring_server
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = ("/ping", "/health")


def guarded(app: App, key: str) -> App:
    """The application, which now answers nobody but probes and those who have the key."""
    expected = f"Bearer {key}".encode()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or scope["path"] in PROBES or secrets.compare_digest(given, expected):
            await app(scope, receive, send)
        else:
            await PlainTextResponse("The key is missing or wrong.\n", 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    return guard


def main() -> None:
    """Load the model and serve it until the process is ended."""
    app = scoring_server.init(mlflow.pyfunc.load_model(str(Path(__file__).parent / "model")))
    key = os.environ.pop("SCORING_KEY", "")
    # All addresses of a container are its own; whoever runs it elsewhere says where to listen.
    host = os.environ.get("HOST", "0.0.0.0")  # noqa: S104
    uvicorn.run(guarded(app, key) if key else app, host=host, port=int(os.environ.get("PORT", "5001")), access_log=False)


if __name__ == "__main__":
    main()
