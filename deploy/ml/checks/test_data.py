"""The split: what is held out stays out, on every machine the same."""

from __future__ import annotations

from deploy.ml import data


def test_no_holdout_row_is_among_the_training_rows() -> None:
    rows = data.load()

    parts = data.split(rows, seed=20)

    seen = {tuple(row) for row in parts.training.features.to_numpy()}
    held = {tuple(row) for row in parts.holdout.features.to_numpy()}
    assert not seen & held
    assert len(parts.training) + len(parts.holdout) == len(rows) == 442


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    rows = data.load()

    first, second, other = (data.split(rows, seed).holdout.fingerprint for seed in (20, 20, 21))

    assert first == second != other
    assert first == "sha256:bc2bc489566961bf064e3021fd2866c67e69522d49229ecf23b0b91950011f8a"


def test_fewer_rows_are_the_first_ones() -> None:
    training = data.split(data.load(), seed=20).training

    assert data.first(training, 60).target.tolist() == training.target.tolist()[:60]
    assert data.first(training, None) is training
