"""Reading what the stages hand on: schema 1, and nothing else."""

from __future__ import annotations

import json

import pytest

from bot.core.delivery import Unreadable, comparison, image, pick, smoke_test, version
from bot.core.models import Direction, Image, Metric, ModelVersion, SmokeTest, Verdict

EVALUATION: dict[str, object] = {
    "schema": 1,
    "model": "diabetes",
    "verdict": "pass",
    "winner": "ridge",
    "decides": "mae",
    "rule": "Better.",
    "metrics": [{"name": "mae", "label": "Mean absolute error", "direction": "lower", "digits": 2, "limit": None}],
    "holdout": {"rows": 89, "fingerprint": "sha256:feed"},
    "champion": {"name": "diabetes", "version": 3, "algorithm": "ridge", "metrics": {"mae": 44.0}},
    "candidates": [
        {"name": "ridge", "algorithm": "ridge", "run_id": "r1", "job": "j", "metrics": {"mae": 41, "r2": None}, "parameters": {"alpha": 1}}
    ],
}
MODEL = {
    "schema": 1,
    "name": "diabetes",
    "version": "4",
    "id": "x",
    "metrics": {"mae": 41.2},
    "commit": "abc",
    "data_fingerprint": "sha256:1",
}
DIGEST = "sha256:" + "ab" * 32
IMAGE = {"schema": 1, "name": "scoring", "tag": "4", "digest": DIGEST, "location": f"r/scoring@{DIGEST}"}
SMOKE = {
    "schema": 1,
    "environment": "qa",
    "target": "aci",
    "endpoint": "http://h",
    "passed": True,
    "checked": 5,
    "latency_ms": 12,
    "digest": DIGEST,
}


def written(content: object, **changes: object) -> bytes:
    assert isinstance(content, dict)
    return json.dumps({**content, **changes}).encode()


def test_an_evaluation_is_read() -> None:
    read = comparison(written(EVALUATION))

    assert read.verdict is Verdict.PASS
    assert read.winner == "ridge"
    assert read.metrics == (Metric("mae", "Mean absolute error", Direction.LOWER, 2),)
    assert read.champion is not None
    assert read.champion.version == "3"
    assert read.candidates[0].metrics == {"mae": 41.0}
    assert read.candidates[0].parameters == {"alpha": "1"}
    assert (read.rows, read.fingerprint) == (89, "sha256:feed")


def test_a_first_evaluation_has_no_champion_and_may_have_no_winner() -> None:
    plain = [{"name": "ridge", "metrics": {}}]
    metrics = [{"name": "mae", "label": "MAE", "direction": "lower", "digits": -4}]

    read = comparison(written(EVALUATION, verdict="fail", winner=None, champion=None, candidates=plain, metrics=metrics, holdout=None))

    assert read.champion is None
    assert read.winner is None
    assert read.candidates[0].algorithm == "ridge"
    assert read.metrics[0].digits == 2
    assert read.rows == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has a shape"),
        (written(EVALUATION, schema=2), "has schema 2"),
        (written(EVALUATION, verdict="maybe"), "has a shape"),
        (written(EVALUATION, metrics=[]), "has a shape"),
        (written(EVALUATION, metrics=[{"name": "mae", "label": "MAE", "direction": "sideways"}]), "has a shape"),
        (written(EVALUATION, candidates=["ridge"]), "has a shape"),
        (written(EVALUATION, candidates=[{"name": "ridge", "metrics": {"mae": "41"}}]), "has a shape"),
        (written(EVALUATION, candidates=[{"name": "ridge", "metrics": {"mae": True}}]), "has a shape"),
        (written(EVALUATION).replace(b"41", b"1e999"), "has a shape"),
        (written(EVALUATION).replace(b"41", b"NaN"), "is not JSON"),
        (written(EVALUATION, decides="r2"), "decides by a metric"),
        (written(EVALUATION, winner="forest"), "names no winner"),
    ],
)
def test_an_evaluation_that_is_not_understood_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(Unreadable, match=sentence):
        comparison(content)


def test_a_registered_version_is_read() -> None:
    assert version(written(MODEL)) == ModelVersion(
        "diabetes", "4", commit="abc", metrics={"mae": 41.2}, tags={"data_fingerprint": "sha256:1"}
    )
    assert version(written({"schema": 1, "name": "diabetes", "version": 4})) == ModelVersion("diabetes", "4")


def test_an_image_is_read_by_its_digest_only() -> None:
    assert image(written(IMAGE)) == Image("scoring", "4", DIGEST, f"r/scoring@{DIGEST}")
    with pytest.raises(Unreadable, match=r"image\.json has a shape"):
        image(written(IMAGE, digest="latest"))


def test_a_smoke_test_is_read() -> None:
    assert smoke_test(written(SMOKE), "qa.json") == SmokeTest("qa", "aci", "http://h", True, 5, 12.0, digest=DIGEST)
    bare = smoke_test(written(SMOKE, checked=None, latency_ms=None), "qa.json")
    assert (bare.checked, bare.latency_ms) == (0, 0.0)


@pytest.mark.parametrize(
    "read",
    [
        lambda: version(written(MODEL, version=None)),
        lambda: version(written(MODEL, metrics=[1])),
        lambda: smoke_test(written(SMOKE, passed="yes"), "qa.json"),
    ],
)
def test_other_shapes_are_refused(read: object) -> None:
    assert callable(read)
    with pytest.raises(Unreadable, match="has a shape"):
        read()


def test_a_file_is_found_wherever_it_lies_in_the_artifact() -> None:
    assert pick({"evaluation/evaluation.json": b"1"}, "evaluation.json") == b"1"
    assert pick({"other.json": b"1"}, "evaluation.json") is None
