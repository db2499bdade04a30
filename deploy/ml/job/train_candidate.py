"""The training job: fits one candidate, logs it to MLflow, and leaves the model as the job's output.

It scores on training rows only; what decides is the evaluate stage's score on the hold-out rows, which never come here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from deploy.ml import candidates, data, score
from deploy.ml.candidates import TRUSTED_TYPES, Candidate

FOLDS = 3


def main(argv: Sequence[str]) -> None:
    """Train, log, save."""
    parser = argparse.ArgumentParser(description="Train one candidate.")
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--settings", required=True, type=json.loads, help="JSON object of the algorithm's settings")
    parser.add_argument("--rows", required=True, type=int, help="rows to train on; 0 means all")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path, help="folder for the MLflow model")
    asked = parser.parse_args(argv)
    candidate = Candidate(asked.algorithm, asked.settings, asked.rows or None)
    shown = " ".join(f"{name}={value}" for name, value in candidate.parameters.items())
    print(f"Training {candidate.algorithm} with {shown}", flush=True)

    training = data.split(data.load(), asked.seed).training
    rows = data.first(training, candidate.rows)
    print(f"{len(rows)} of {len(training)} training rows, {rows.fingerprint}", flush=True)
    _point_mlflow_at_the_workspace()
    train(candidate, rows, asked.seed, asked.out)
    print(f"Saved the model to {asked.out}", flush=True)


def train(candidate: Candidate, rows: data.Rows, seed: int, out: Path) -> None:
    """Fit the candidate on the rows within the run that the job was given; log what it is and save it."""
    import mlflow  # noqa: PLC0415 a first line in the log should not wait for it
    from mlflow.models import infer_signature  # noqa: PLC0415

    model = candidates.build(candidate.algorithm, candidate.settings, seed)
    with mlflow.start_run():
        mlflow.set_tag("data_fingerprint", rows.fingerprint)
        mlflow.log_params({"algorithm": candidate.algorithm, "seed": seed, "training_rows": len(rows), **candidate.settings})
        for fold, value in enumerate(cross_validate(candidate, rows, seed)):
            mlflow.log_metric("validation_mae", value, step=fold)
        model.fit(rows.features, rows.target)
        fitted = score.metrics(model, rows)
        mlflow.log_metrics({f"training_{name}": value for name, value in fitted.items()})
        mlflow.sklearn.save_model(
            model,
            str(out),
            signature=infer_signature(rows.features, model.predict(rows.features)),
            input_example=rows.features.head(5),
            # Given, because MLflow would otherwise start a second Python to find out.
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "pandas", "numpy")],
            skops_trusted_types=list(TRUSTED_TYPES),
        )
    print(", ".join(f"training {name} {value:.3f}" for name, value in fitted.items()), flush=True)


def cross_validate(candidate: Candidate, rows: data.Rows, seed: int) -> list[float]:
    """The mean absolute error of each fold, each scored by a model that has not seen it."""
    errors = []
    for fold in range(FOLDS):
        inside = [index for index in range(len(rows)) if index % FOLDS != fold]
        outside = [index for index in range(len(rows)) if index % FOLDS == fold]
        model = candidates.build(candidate.algorithm, candidate.settings, seed)
        model.fit(rows.features.iloc[inside], rows.target.iloc[inside])
        held = data.Rows(rows.features.iloc[outside], rows.target.iloc[outside])
        errors.append(score.metrics(model, held)["mae"])
    return errors


def _point_mlflow_at_the_workspace() -> None:
    """Azure names its tracking server `azureml://host/...`; it is the same server under https, with the token the job was given."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it does not know the studio's addresses
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address.startswith("azureml://"):
        os.environ["MLFLOW_TRACKING_URI"] = address.replace("azureml://", "https://", 1)


if __name__ == "__main__":
    main(sys.argv[1:])
