"""What is sent to the servers under test: service hooks and slash commands as they come in production, as bytes."""

from __future__ import annotations

import itertools
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from bench.load import post
from sandbox.names import ADA, CHANNEL, ORGANIZATION, PIPELINE, PIPELINE_ID, PROJECT, TEAM
from sandbox.slack.delivery import sign

USERNAME, PASSWORD, SECRET = "azure-devops", "p" * 32, "h" * 32
SIGNING_SECRET = "s" * 32
RUNS = range(401, 421)

Json = dict[str, Any]


def hook(run: int, kind: str, resource: Mapping[str, Any], notification: int) -> Json:
    """A delivery of Azure Pipelines, as long as real ones are."""
    words = f"Stage train of run {run} moved."
    text = {"text": words, "html": words, "markdown": words}
    base = f"https://dev.azure.com/{ORGANIZATION}"
    return {
        "subscriptionId": "8d6b0b4e-0f5e-4d6e-9c1f-000000000001",
        "notificationId": notification,
        "id": "03c164c2-8912-4d5e-8009-3707d5f80013",
        "eventType": f"ms.vss-pipelines.{kind}-state-changed-event",
        "publisherId": "pipelines",
        "message": text,
        "detailedMessage": text,
        "resource": {
            "run": {
                "id": run,
                "name": f"20261123.{run}",
                "state": "inProgress",
                "createdDate": "2026-11-23T09:30:00Z",
                "templateParameters": {"model": PIPELINE, "alpha": "100"},
                "url": f"{base}/{PROJECT}/_apis/pipelines/{PIPELINE_ID}/runs/{run}",
                "_links": {"web": {"href": f"{base}/{PROJECT}/_build/results?buildId={run}"}},
            },
            "runId": run,
            "pipeline": {"id": PIPELINE_ID, "name": PIPELINE, "folder": "\\", "url": f"{base}/_apis/pipelines/{PIPELINE_ID}?revision=3"},
            "projectId": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0001",
            "requestedFor": {"displayName": ADA.name, "id": ADA.oid, "uniqueName": ADA.email, "descriptor": "aad.YWRh"},
            **resource,
        },
        "resourceVersion": "5.1-preview.1",
        "resourceContainers": {
            "collection": {"id": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0003", "baseUrl": f"{base}/"},
            "account": {"id": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0003", "baseUrl": f"{base}/"},
        },
        "createdDate": "2026-11-23T09:30:00.000Z",
    }


def hook_request(delivery: Json, username: str = USERNAME, password: str = PASSWORD, secret: str = SECRET) -> bytes:
    """The request that a delivery comes in."""
    credentials = b64encode(f"{username}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "X-Callboard-Secret": secret, "Content-Type": "application/json"}
    return post("/hooks/azure-devops", json.dumps(delivery).encode(), headers)


def hooks() -> Callable[[], bytes]:
    """Requests without end, each a notification of its own, in turn about the run, a stage and a job of each of the runs.

    Only the number differs between two of a kind, so that making one costs the load generator next to nothing.
    """
    mark = 10**9 - 1
    stage = {"stage": {"name": "train", "displayName": "Train", "state": "running", "attempt": 1}, "stageName": "train"}
    job = {**stage, "job": {"name": "train", "state": "running", "attempt": 1}, "jobName": "train"}
    kinds: tuple[tuple[str, Json], ...] = (("run", {}), ("stage", stage), ("job", job))
    halves = [hook_request(hook(run, kind, more, mark)).split(str(mark).encode()) for run in RUNS for kind, more in kinds]
    numbers = itertools.count(10**8)
    endless = (before + str(number).encode() + after for (before, after), number in zip(itertools.cycle(halves), numbers, strict=False))
    return endless.__next__


def commands(response_url: str) -> Callable[[], bytes]:
    """Signed `/mlops help`, without end, each by somebody else: nobody types two within seconds."""
    return _commands(response_url).__next__


def _commands(response_url: str) -> Iterator[bytes]:
    for number in itertools.count(1):
        form = {
            "token": "t" * 24,
            "team_id": TEAM,
            "team_domain": ORGANIZATION,
            "channel_id": CHANNEL,
            "channel_name": "ml-delivery",
            "user_id": f"U{number:08}",
            "user_name": f"person-{number}",
            "command": "/mlops",
            "text": "help",
            "api_app_id": "A0CALLBRD",
            "is_enterprise_install": "false",
            "response_url": response_url,
            "trigger_id": f"{number}.{number}.0123456789abcdef",
        }
        body, stamp = urlencode(form).encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": sign(SIGNING_SECRET, stamp, body),
        }
        yield post("/slack/events", body, headers)
