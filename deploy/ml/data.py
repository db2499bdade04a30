"""The data the models learn from: scikit-learn's diabetes study, and its one split into training and hold-out rows."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

HOLDOUT = 0.2  # share of rows that no training ever sees


@dataclass(frozen=True, slots=True)
class Rows:
    """Features (a pandas frame, columns in their order) and the target beside them."""

    features: Any
    target: Any

    def __len__(self) -> int:
        return len(self.target)

    @property
    def fingerprint(self) -> str:
        """The same for the same rows in the same order, on any machine."""
        text = self.features.assign(target=self.target).to_csv(index=False, lineterminator="\n", float_format="%.10g")
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts of the data; every candidate trains on (the first of) `training`, all are scored on `holdout`."""

    training: Rows
    holdout: Rows


def load() -> Rows:
    """All 442 patients: ten measurements in their own units, and how far the disease had gone a year later.

    https://scikit-learn.org/stable/datasets/toy_dataset.html#diabetes-dataset
    """
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 seconds that whoever only reads settings need not wait for

    bunch = load_diabetes(as_frame=True, scaled=False)
    return Rows(bunch.data.astype("float64"), bunch.target.astype("float64"))


def split(rows: Rows, seed: int) -> Split:
    """The one split for a seed."""
    import numpy as np  # noqa: PLC0415

    order = np.random.default_rng(seed).permutation(len(rows))
    held = math.ceil(len(rows) * HOLDOUT)
    return Split(training=_take(rows, order[held:]), holdout=_take(rows, order[:held]))


def first(rows: Rows, count: int | None) -> Rows:
    """The first rows of a part, or all of them."""
    return rows if count is None else _take(rows, slice(count))


def _take(rows: Rows, which: Any) -> Rows:
    return Rows(rows.features.iloc[which].reset_index(drop=True), rows.target.iloc[which].reset_index(drop=True))
