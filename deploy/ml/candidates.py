"""The algorithms that compete, and the settings each of them knows. `callboard.toml` says which take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.ml.config import Mistake, Model, Parameter

# Settings that are no algorithm's own: `rows` to train on, `compute` to train at.
COMMON = ("rows", "compute")
# Types that MLflow's safe format names before it loads a model of ours: the trees' own storage.
TRUSTED_TYPES = ("sklearn.tree._tree.Tree",)

Settings = Mapping[str, float | str]


def _ridge(settings: Mapping[str, float], seed: int) -> Any:
    from sklearn.linear_model import Ridge  # noqa: PLC0415 only the job trains; whoever plans it need not wait for the library
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), Ridge(alpha=settings["alpha"], random_state=seed))


def _forest(settings: Mapping[str, float], seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415

    return RandomForestRegressor(n_estimators=int(settings["trees"]), max_depth=int(settings["depth"]), random_state=seed)


def _boosting(settings: Mapping[str, float], seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor  # noqa: PLC0415

    return GradientBoostingRegressor(
        n_estimators=int(settings["trees"]), max_depth=int(settings["depth"]), learning_rate=settings["rate"], random_state=seed
    )


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to learn: the settings it needs, and how it is built from them and a seed."""

    settings: tuple[str, ...]
    build: Callable[[Mapping[str, float], int], Any]


ALGORITHMS: Mapping[str, Algorithm] = {
    "ridge": Algorithm(("alpha",), _ridge),
    "forest": Algorithm(("trees", "depth"), _forest),
    "boosting": Algorithm(("trees", "rate", "depth"), _boosting),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One contender of a run: its algorithm and everything it is trained with; `rows` of None are all there are."""

    algorithm: str
    settings: Mapping[str, float]
    rows: int | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """What people and MLflow read."""
        shown = {name: f"{value:g}" for name, value in self.settings.items()}
        return shown | ({"rows": str(self.rows)} if self.rows is not None else {})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run trains, and on which compute."""

    candidates: tuple[Candidate, ...]
    compute: str


def build(algorithm: str, settings: Mapping[str, float], seed: int) -> Any:
    """An untrained estimator. Raises Mistake."""
    known = ALGORITHMS.get(algorithm)
    if known is None:
        raise Mistake(f"Algorithm {algorithm!r} is unknown; known: {', '.join(ALGORITHMS)}.")
    if missing := [name for name in known.settings if name not in settings]:
        raise Mistake(f"{algorithm} needs {', '.join(missing)}.")
    return known.build(settings, seed)


def parse(text: str, parameters: Mapping[str, Parameter]) -> dict[str, float | str]:
    """Settings as a person wrote them (`alpha=0.5 rows=100`, or `none`), held against what the model declares. Raises Mistake."""
    given: dict[str, float | str] = {}
    for word in [] if text.strip() in ("", "none") else text.split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise Mistake(f"{word!r} is not name=value.")
        if name not in parameters:
            raise Mistake(f"Setting {name!r} is unknown; known: {', '.join(parameters)}.")
        given[name] = _value(parameters[name], value)
    return given


def plan(model: Model, settings: Settings) -> Plan:
    """The model's candidates, with the run's settings laid over those of their algorithms that know them. Raises Mistake."""
    rows = settings.get("rows")
    own = {name: value for name, value in settings.items() if name not in COMMON}
    candidates = []
    for algorithm, defaults in model.candidates.items():
        known = ALGORITHMS.get(algorithm)
        if known is None:
            raise Mistake(f"callboard.toml: [models.{model.name}.candidates] names {algorithm!r}; known: {', '.join(ALGORITHMS)}.")
        if strange := [name for name in defaults if name not in known.settings]:
            raise Mistake(f"callboard.toml: {algorithm} does not know {', '.join(strange)}; it knows {', '.join(known.settings)}.")
        laid = {**defaults, **{name: float(value) for name, value in own.items() if name in known.settings}}
        if missing := [name for name in known.settings if name not in laid]:
            raise Mistake(f"callboard.toml: {algorithm} needs {', '.join(missing)}.")
        candidates.append(Candidate(algorithm, laid, int(rows) if rows is not None else None))
    if unused := [name for name in own if not any(name in ALGORITHMS[candidate.algorithm].settings for candidate in candidates)]:
        raise Mistake(f"No candidate of {model.name} knows {', '.join(unused)}.")
    return Plan(tuple(candidates), str(settings.get("compute", model.compute)))


def _value(parameter: Parameter, text: str) -> float | str:
    if parameter.kind == "choice":
        if text not in parameter.choices:
            raise Mistake(f"{parameter.name} must be one of {', '.join(parameter.choices)}, not {text!r}.")
        return text
    try:
        value = int(text) if parameter.kind == "integer" else float(text)
    except ValueError:
        raise Mistake(
            f"{parameter.name} must be {'a whole number' if parameter.kind == 'integer' else 'a number'}, not {text!r}."
        ) from None
    # Written so that nan, which compares with nothing, is refused.
    inside = (parameter.minimum is None or value >= parameter.minimum) and (parameter.maximum is None or value <= parameter.maximum)
    if not inside:
        raise Mistake(f"{parameter.name} must {_bounds(parameter)}, not {text}.")
    return value


def _bounds(parameter: Parameter) -> str:
    if parameter.minimum is None:
        return f"be at most {parameter.maximum:g}"
    if parameter.maximum is None:
        return f"be at least {parameter.minimum:g}"
    return f"lie between {parameter.minimum:g} and {parameter.maximum:g}"
