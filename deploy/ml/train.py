"""Stage `train`: one command job per candidate, all at the same time; ends when the last one has ended."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.ml import candidates, config, stage
from deploy.ml.candidates import Candidate, Plan
from deploy.ml.workspace import ENVIRONMENT, environment_version

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

HERE = Path(__file__).parent
# What runs on the training compute, and nothing else: a change elsewhere is no new code to Azure ML.
SNAPSHOT = ("__init__.py", "config.py", "data.py", "candidates.py", "score.py", "job/__init__.py", "job/train_candidate.py")
COMMAND = (
    "python -m deploy.ml.job.train_candidate --algorithm ${{inputs.algorithm}} --settings '${{inputs.settings}}' "
    "--rows ${{inputs.rows}} --seed ${{inputs.seed}} --out '${{outputs.model}}'"
)
ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
_TAIL = 20  # lines of a failed job's log that the stage's log repeats


@dataclass(frozen=True, slots=True)
class Submitted:
    """A candidate and the job that trains it; Azure ML's job and MLflow's run have one name."""

    candidate: Candidate
    job: str


def main(argv: Sequence[str]) -> None:
    """Train every candidate and say where each one is."""
    parser = argparse.ArgumentParser(description="Train the candidates of a model.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--settings", default="none", help='like "alpha=0.5 rows=100", or "none"')
    parser.add_argument("--out", required=True, type=Path)
    asked = parser.parse_args(argv)
    settings = config.load()
    model = settings.model(asked.model)
    plan = candidates.plan(model, candidates.parse(asked.settings, model.parameters))
    stage.say(f"{len(plan.candidates)} candidates for {model.name} on {plan.compute}")

    client = stage.client(settings.workspace)
    with tempfile.TemporaryDirectory() as folder:
        submitted = submit(client, model, plan, snapshot(Path(folder) / "training"))
    jobs = wait(client, submitted)
    stage.write(asked.out / "training.json", document(model, plan, submitted, jobs))


def snapshot(into: Path) -> Path:
    """The job's code, in the folders that its imports expect."""
    for name in SNAPSHOT:
        file = into / "deploy" / "ml" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, file)
    return into


def submit(client: MLClient, model: config.Model, plan: Plan, code: Path) -> tuple[Submitted, ...]:
    """Submit a job for each candidate; Azure ML runs them side by side."""
    from azure.ai.ml import Output, command  # noqa: PLC0415

    submitted = []
    for candidate in plan.candidates:
        name = f"{model.name}-{candidate.algorithm}-{stage.build() or 'local'}-{secrets.token_hex(3)}"
        wish = command(
            name=name,
            display_name=f"{candidate.algorithm} {_shown(candidate.parameters)}".strip(),
            experiment_name=model.name,
            command=COMMAND,
            code=str(code),
            environment=f"{ENVIRONMENT}:{environment_version()}",
            compute=plan.compute,
            inputs={
                "algorithm": candidate.algorithm,
                "settings": json.dumps(dict(candidate.settings)),
                "rows": candidate.rows or 0,
                "seed": model.seed,
            },
            outputs={"model": Output(type="mlflow_model", mode="rw_mount")},
            tags={"model": model.name, "algorithm": candidate.algorithm, "build_id": stage.build(), "commit": stage.commit()},
        )
        client.jobs.create_or_update(wish)
        stage.say(f"{candidate.algorithm}: submitted as {name} with {_shown(candidate.parameters)}")
        submitted.append(Submitted(candidate, name))
    return tuple(submitted)


def wait(client: MLClient, submitted: Sequence[Submitted]) -> dict[str, Any]:
    """Wait until every job has ended; returns them by name. Raises Failed with the first failed job's own error."""
    seen: dict[str, str] = {}
    jobs: dict[str, Any] = {}
    for pause in pauses():
        for one in submitted:
            if one.job in jobs:
                continue
            job = client.jobs.get(one.job)
            status = str(getattr(job.status, "value", job.status))
            if status != seen.get(one.job):
                seen[one.job] = status
                stage.say(f"{one.candidate.algorithm}: {status}")
            if status in ENDED:
                jobs[one.job] = job
            if status in ENDED and status != "Completed":
                reason = explain(client, one.job)
                _give_up(client, [other.job for other in submitted if other.job not in jobs])
                raise stage.Failed(f"Training {one.candidate.algorithm} failed: {reason or status}")
        if len(jobs) == len(submitted):
            break
        time.sleep(pause)
    return jobs


def pauses(first: float = 0.3, longest: float = 5.0) -> Iterator[float]:
    """Seconds between two looks: short at first, for jobs that take seconds, then longer."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 1.1, longest)


def explain(client: MLClient, job: str) -> str:
    """Why a job failed, in one line; the end of what it printed goes to the stage's log."""
    from azure.ai.ml.exceptions import JobException  # noqa: PLC0415

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            client.jobs.stream(job)
    except JobException as problem:
        message = message_in(str(problem))
        for line in message.splitlines()[-_TAIL:]:
            stage.say(f"  {line}")
        return cause(message)
    return ""


def message_in(told: str) -> str:
    """The service's message inside what the SDK raises for a failed job: a sentence with JSON in it."""
    start = told.find("{")
    if start < 0:
        return told
    try:
        found, _ = json.JSONDecoder().raw_decode(told[start:])
    except ValueError:
        return told
    while isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    return str(found.get("message") or told) if isinstance(found, dict) else told


def cause(message: str) -> str:
    """The line of a failed job's message that says what went wrong: a traceback's last, else the first."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    if any(line.endswith("Traceback (most recent call last):") for line in lines):
        return next(
            (line for line in reversed(lines) if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Mistake)?\b:", line)), lines[-1]
        )
    return lines[0]


def document(model: config.Model, plan: Plan, submitted: Sequence[Submitted], jobs: Mapping[str, Any]) -> dict[str, Any]:
    """training.json. Raises Failed where the candidates did not see the same rows."""
    fingerprints = {jobs[one.job].tags.get("data_fingerprint", "") for one in submitted}
    if len(fingerprints) != 1 or "" in fingerprints:
        raise stage.Failed("The candidates were not trained on the same rows; their jobs' data fingerprints differ or are missing.")
    return {
        "model": model.name,
        "commit": stage.commit(),
        "build_id": stage.build(),
        "compute": plan.compute,
        "seed": model.seed,
        "data_fingerprint": fingerprints.pop(),
        "candidates": [
            {
                "name": one.candidate.algorithm,
                "algorithm": one.candidate.algorithm,
                "job": one.job,
                "run_id": one.job,
                "parameters": one.candidate.parameters,
            }
            for one in submitted
        ],
    }


def _give_up(client: MLClient, jobs: Sequence[str]) -> None:
    """Cancel what still runs: nobody will use it."""
    from azure.core.exceptions import AzureError  # noqa: PLC0415

    for job in jobs:
        try:
            client.jobs.begin_cancel(job)
        except AzureError as problem:  # the failure that brought us here is the one to tell
            stage.say(f"{job} could not be cancelled: {stage.first_line(problem)}")


def _shown(parameters: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())


if __name__ == "__main__":
    stage.run(main)
