"""The process that runs azure-ai-ml for the bot: `python -m bot.azure_ml_worker`, JSON lines on standard input and output.

The SDK takes seconds to import, more memory than the rest of the bot together, and cannot be told to give up: a process can be killed.
A question is `{"do": "versions", "model": "diabetes"}`; an answer has the same shape or is `{"error": kind, "says": sentence}`.
It ends when its input ends, so that it never outlives the bot.
"""

from __future__ import annotations

import json
import math
import os
import queue
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from bot.credential import default_credential

LINE = 4 * 1024 * 1024  # bytes of one message, either way
Answer = dict[str, Any]


def main() -> None:
    """Answer questions, one at a time, until the input ends."""
    # What libraries print goes to the log, not between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from azure.ai.ml import MLClient  # noqa: PLC0415 what it says while it is imported goes to the log, too

    subscription, resource_group, workspace = sys.argv[1:4]
    client = MLClient(default_credential(), subscription, resource_group, workspace, enable_telemetry=False)
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    _say(answers, {"ready": True})
    while True:
        _say(answers, answer(client, json.loads(questions.get())))


def _listen(questions: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)  # the bot is gone; a call that is under way interests nobody


def _say(answers: Any, said: Answer) -> None:
    line = json.dumps(said)
    if len(line) >= LINE:
        line = json.dumps({"error": "refused", "says": "Azure Machine Learning's answer is too long."})
    answers.write(line + "\n")
    answers.flush()


def answer(client: Any, question: Mapping[str, Any]) -> Answer:
    """The answer to one question; what goes wrong is part of it."""
    try:
        match question:
            case {"do": "versions", "model": str(model)}:
                return {"versions": versions(client.models.list(name=model))}
            case {"do": "tracking"}:
                return {"tracking": client.workspaces.get(client.workspace_name).mlflow_tracking_uri}
            case _:
                return {"error": "refused", "says": "The worker does not know this question."}
    except ResourceNotFoundError as error:
        if question.get("do") == "versions":
            return {"versions": []}
        return {"error": "gone", "says": _sentence(error)}
    except AzureError as error:
        return failure(error)


def versions(models: Iterable[Any]) -> list[Answer]:
    """What the bot wants to know of each registered version."""
    return [
        {
            "name": model.name,
            "version": str(model.version),
            "created": created.isoformat() if (created := getattr(model.creation_context, "created_at", None)) else None,
            "tags": {str(name): str(value) for name, value in (model.tags or {}).items()},
        }
        for model in models
    ]


def failure(error: AzureError) -> Answer:
    """What went wrong, by what can be done about it."""
    if isinstance(error, ClientAuthenticationError):
        return {"error": "not now", "says": "Callboard could not sign in to Azure."}
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return {"error": "not now", "says": "Azure Machine Learning cannot be reached."}
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        if error.status_code == 429 or error.status_code >= 500:
            after = _seconds(getattr(error.response, "headers", {}).get("Retry-After"))
            return {"error": "not now", "says": "Azure Machine Learning has trouble.", "after": after}
        return {"error": "refused", "says": _sentence(error)}
    return {"error": "not now", "says": "Azure Machine Learning gave an answer that cannot be read."}


def _sentence(error: AzureError) -> str:
    detail = getattr(getattr(error, "error", None), "message", None)
    return str(detail or error.message).strip().partition("\n")[0][:300]


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None


if __name__ == "__main__":
    main()
