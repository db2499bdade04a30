"""Asks Prod and the registry the same question, as a person with the SDK would: `python -m sandbox.probe MODEL VERSION ENDPOINT`.

Run in the sandbox's environment (`World.outside`). Prints both answers as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import mlflow.pyfunc
import pandas
import requests
from azure.ai.ml import MLClient
from azure.identity import DefaultAzureCredential
from sklearn.datasets import load_diabetes

from sandbox.names import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE

ROWS = 5


def main(model: str, version: str, endpoint: str) -> None:
    """Predict a few rows with the registered model here, and over HTTP with what Prod serves."""
    rows = load_diabetes(as_frame=True).data.head(ROWS)
    client = MLClient(DefaultAzureCredential(), SUBSCRIPTION, RESOURCE_GROUP, WORKSPACE, enable_telemetry=False)
    serving = client.online_endpoints.get(endpoint)
    key = client.online_endpoints.get_keys(endpoint).primary_key
    answer = requests.post(
        serving.scoring_uri, json={"dataframe_split": rows.to_dict(orient="split")}, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    answer.raise_for_status()
    with tempfile.TemporaryDirectory() as folder:
        client.models.download(model, version, download_path=folder)
        saved = next(Path(folder).rglob("MLmodel")).parent
        own = pandas.Series(mlflow.pyfunc.load_model(str(saved)).predict(rows)).tolist()
    print(json.dumps({"prod": answer.json()["predictions"], "registered": own, "traffic": dict(serving.traffic)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
