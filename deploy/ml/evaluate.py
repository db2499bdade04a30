"""Stage `evaluate`: scores champion and candidates on the one hold-out set, and says whether there is a winner.

It fails closed: whatever cannot be fetched or scored makes the verdict `fail`, and the reason is in evaluation.json.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.ml import config, data, gate, registry, score, stage
from deploy.ml.gate import Contender, Outcome

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything the stage found out."""

    outcome: Outcome
    champion: Contender | None
    candidates: tuple[Contender, ...]
    holdout: data.Rows | None


def main(argv: Sequence[str]) -> None:
    """Evaluate a run's candidates, or one registered version."""
    parser = argparse.ArgumentParser(description="Score champion and candidates, and decide.")
    parser.add_argument("--model", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--training", type=Path, help="training.json of the train stage")
    source.add_argument("--version", help="a registered version, or latest")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--model-out", type=Path, help="where model.json goes, with --version")
    asked = parser.parse_args(argv)
    settings = config.load()
    model = settings.model(asked.model)
    try:
        score.get_ready()
        client = stage.client(settings.workspace)
        if asked.training:
            evaluation = evaluate_training(client, model, stage.read(asked.training))
        else:
            evaluation = evaluate_version(client, model, asked.version, asked.model_out)
    except Exception as problem:
        reason = str(problem) if isinstance(problem, stage.Failed | config.Mistake) else stage.first_line(problem)
        _hand_on(asked.out, model, Evaluation(Outcome("fail", f"Nothing could be evaluated: {reason}"), None, (), None))
        raise
    _hand_on(asked.out, model, evaluation)
    if evaluation.outcome.verdict == "fail":
        raise stage.Failed(evaluation.outcome.rule)


def evaluate_training(client: MLClient, model: config.Model, training: Mapping[str, Any]) -> Evaluation:
    """The champion against every candidate of a training. Raises Failed."""
    if training.get("model") != model.name:
        raise stage.Failed(f"The training is of {training.get('model')!r}, not of {model.name!r}.")
    holdout = data.split(data.load(), model.seed).holdout
    standing = registry.champion(registry.versions(client, model.name))
    champion = _champion(client, model, standing, holdout) if standing else None
    candidates = tuple(
        _scored(
            Contender(
                name=one["name"], algorithm=one["algorithm"], run_id=one["run_id"], job=one["job"], parameters=one.get("parameters", {})
            ),
            partial(_download_output, client, one["job"]),
            holdout,
        )
        for one in training["candidates"]
    )
    return Evaluation(gate.decide(model, champion, candidates), champion, candidates, holdout)


def evaluate_version(client: MLClient, model: config.Model, version: str, model_out: Path | None) -> Evaluation:
    """The champion against a version that a person asked for; writes its model.json. Raises Failed."""
    holdout = data.split(data.load(), model.seed).holdout
    known = registry.versions(client, model.name)
    wanted, standing = registry.chosen(known, version), registry.champion(known)
    champion = _champion(client, model, standing, holdout) if standing else None
    tags = wanted.tags or {}
    candidate = _scored(
        Contender(
            f"version {wanted.version}",
            tags.get("algorithm", ""),
            version=str(wanted.version),
            run_id=tags.get("run_id"),
            job=tags.get("job"),
        ),
        partial(registry.download, client, model.name, str(wanted.version)),
        holdout,
    )
    if model_out is not None:
        stage.write(model_out / "model.json", registry.document(wanted, candidate.metrics))
    return Evaluation(gate.decide_promotion(model, champion, candidate), champion, (candidate,), holdout)


def document(model: config.Model, evaluation: Evaluation) -> dict[str, Any]:
    """evaluation.json."""
    champion, outcome, holdout = evaluation.champion, evaluation.outcome, evaluation.holdout
    return {
        "model": model.name,
        "verdict": outcome.verdict,
        "winner": outcome.winner,
        "decides": model.gate.decides,
        "rule": outcome.rule,
        "metrics": [
            {
                "name": metric.name,
                "label": metric.label,
                "direction": metric.direction,
                "digits": metric.digits,
                "limit": model.gate.limits.get(metric.name),
            }
            for metric in model.metrics
        ],
        "holdout": {"rows": len(holdout), "fingerprint": holdout.fingerprint} if holdout else {"rows": 0, "fingerprint": ""},
        "champion": {
            "name": model.name,
            "version": champion.version,
            "algorithm": champion.algorithm,
            "run_id": champion.run_id,
            "metrics": dict(champion.metrics),
        }
        if champion
        else None,
        "candidates": [
            {
                "name": one.name,
                "algorithm": one.algorithm,
                "run_id": one.run_id,
                "job": one.job,
                "metrics": dict(one.metrics),
                "parameters": dict(one.parameters),
            }
            for one in evaluation.candidates
        ],
    }


def _hand_on(out: Path, model: config.Model, evaluation: Evaluation) -> None:
    stage.write(out / "evaluation.json", document(model, evaluation))
    if evaluation.candidates:
        from deploy.ml import chart  # noqa: PLC0415 matplotlib takes its time

        (out / "candidates.png").write_bytes(chart.draw(model, evaluation.champion, evaluation.candidates, evaluation.outcome.winner))
    stage.say(f"Verdict: {evaluation.outcome.verdict}. {evaluation.outcome.rule}")
    stage.set_variable("verdict", evaluation.outcome.verdict, output=True)


def _champion(client: MLClient, model: config.Model, standing: Any, holdout: data.Rows) -> Contender:
    tags = standing.tags or {}
    contender = Contender("champion", tags.get("algorithm", ""), version=str(standing.version), run_id=tags.get("run_id"))
    return _scored(contender, partial(registry.download, client, model.name, str(standing.version)), holdout)


def _scored(contender: Contender, fetch: Callable[[Path], Path], holdout: data.Rows) -> Contender:
    """The contender with its metrics, or with the reason why it has none."""
    import mlflow.pyfunc  # noqa: PLC0415

    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metrics = score.metrics(mlflow.pyfunc.load_model(str(fetch(Path(folder)))), holdout)
    except score.Unscorable as problem:
        return replace(contender, problem=str(problem))
    except Exception as problem:  # noqa: BLE001 whatever keeps a model from being loaded, it must not win, nor lose, silently
        return replace(contender, problem=stage.first_line(problem))
    stage.say(f"{contender.name} ({contender.algorithm}): " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return replace(contender, metrics=metrics)


def _download_output(client: MLClient, job: str, folder: Path) -> Path:
    client.jobs.download(job, download_path=folder, output_name="model")
    return registry.mlflow_model(folder, f"The output of job {job}")


if __name__ == "__main__":
    stage.run(main)
