"""The expression language of Azure Pipelines."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.azure_devops.expressions import BadExpression, Ran, Scope, evaluate, expand_macros, resolve, truth
from sandbox.azure_devops.plan import Result

EVALUATED = Scope(
    variables={"Build.Reason": "Manual", "judge.verdict": "pass"},
    dependencies={"evaluate": Ran(Result.SUCCEEDED, {"evaluate.judge.verdict": "pass"}), "register": Ran(Result.SKIPPED)},
    stage_dependencies={"evaluate": {"evaluate": Ran(Result.SUCCEEDED, {"judge.verdict": "kept"})}},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("null", None),
        ("-1.5", -1.5),
        ("'it''s'", "it's"),
        ("eq('Pass', 'pass')", True),
        ("eq(1, '1')", True),
        ("eq('1', 1)", True),
        ("eq(true, 'no')", True),  # any text but the empty one is true
        ("eq('', null)", True),
        ("ne('a', 'b')", True),
        ("gt(10, '9')", True),
        ("gt('10', '9')", False),  # as text
        ("ge(2, 2)", True),
        ("lt(1, 2)", True),
        ("le(3, 2)", False),
        ("and(true, 'x', 1)", True),
        ("and(true, '')", False),
        ("or(false, 0, null)", False),
        ("xor(true, false)", True),
        ("not(null)", True),
        ("in('b', 'A', 'B')", True),
        ("notIn('c', 'a', 'b')", True),
        ("contains('ABC', 'bc')", True),
        ("containsValue(split('a,b', ','), 'B')", True),
        ("startsWith('refs/heads/main', 'refs/heads/')", True),
        ("endsWith('a.yml', '.YML')", True),
        ("format('{0} {{kept}} {1}', 'a', 2)", "a {kept} 2"),
        ("join(';', split('a b', ' '))", "a;b"),
        ("split('a b', ' ')[1]", "b"),
        ("lower('AB')", "ab"),
        ("upper('ab')", "AB"),
        ("trim(' a ')", "a"),
        ("replace('a-b', '-', '_')", "a_b"),
        ("coalesce(variables.missing, '', 'x')", "x"),
        ("iif(true, 'a', 'b')", "a"),
        ("length('four')", 4),
        ("convertToJson('a')", '"a"'),
        ("variables['build.reason']", "Manual"),
        ("variables.missing", None),
        ("dependencies.evaluate.outputs['evaluate.judge.verdict']", "pass"),
        ("dependencies.evaluate.result", "Succeeded"),
        ("dependencies.nobody.outputs['a.b.c']", None),
        ("stageDependencies.evaluate.evaluate.outputs['judge.verdict']", "kept"),
        ("and(succeeded(), eq(dependencies.evaluate.outputs['evaluate.judge.verdict'], 'pass'))", False),  # register was skipped
        ("and(succeeded('evaluate'), eq(dependencies.evaluate.outputs['evaluate.judge.verdict'], 'pass'))", True),
    ],
)
def test_an_expression_has_the_value_that_the_service_gives_it(text: str, value: Any) -> None:
    assert evaluate(text, EVALUATED) == value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("eq(1, 2", "Unexpected end of expression: 'eq(1, 2'."),
        ("a-b", "Unexpected symbol: 'a-b'. Located at position 1 within expression: a-b."),
        ("nobody()", "Unrecognized value: 'nobody'. Located at position 1 within expression: nobody()."),
        ("and(true, somebody)", "Unrecognized value: 'somebody'. Located at position 11 within expression: and(true, somebody)."),
        ("eq(1)", "Wrong number of arguments for 'eq'"),
        ("eq(1, 2) x", "Unexpected symbol: 'x'. Located at position 10"),
        ("eq(1 2)", "Unexpected symbol: '2'"),
        ("'open", "Unexpected"),
        ("variables.1", "Unexpected symbol: '1'"),
        ("format('{1}', 'a')", "references more arguments than were supplied"),
        ("gt(dependencies, 1)", "Unable to compare"),
        ("lower(dependencies)", "Unable to convert from Object to String"),
        ("", "Unexpected end of expression"),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused_in_the_service_s_words(text: str, complaint: str) -> None:
    with pytest.raises(BadExpression) as refused:
        evaluate(text, EVALUATED)

    assert complaint in str(refused.value)


def ran(*results: Result, canceled: bool = False) -> Scope:
    return Scope(dependencies={f"stage{i}": Ran(result) for i, result in enumerate(results)}, canceled=canceled)


@pytest.mark.parametrize(
    ("scope", "true"),
    [
        (ran(), {"succeeded", "succeededOrFailed", "always"}),
        (ran(Result.SUCCEEDED, Result.SUCCEEDED_WITH_ISSUES), {"succeeded", "succeededOrFailed", "always"}),
        (ran(Result.SUCCEEDED, Result.SKIPPED), {"succeededOrFailed", "always"}),
        (ran(Result.SUCCEEDED, Result.FAILED), {"failed", "succeededOrFailed", "always"}),
        (ran(Result.CANCELED), {"succeededOrFailed", "always"}),
        (ran(Result.SUCCEEDED, Result.FAILED, canceled=True), {"canceled", "always"}),
        (Scope(before=(Result.FAILED,)), {"failed", "succeededOrFailed", "always"}),
    ],
)
def test_status_functions_look_at_what_ran_before(scope: Scope, true: set[str]) -> None:
    functions = ("succeeded", "failed", "succeededOrFailed", "always", "canceled")

    assert {name for name in functions if truth(evaluate(f"{name}()", scope))} == true


def test_status_functions_look_at_named_ones_alone() -> None:
    scope = ran(Result.SUCCEEDED, Result.FAILED, Result.SKIPPED)

    assert evaluate("succeeded('stage0')", scope) is True
    assert evaluate("succeeded('stage0', 'stage1')", scope) is False
    assert evaluate("succeeded('unknown')", scope) is False
    assert evaluate("failed('stage0', 'stage1')", scope) is True
    assert evaluate("succeededOrFailed('stage2')", scope) is False


def test_macros_become_values_and_what_is_unknown_stays_for_the_shell() -> None:
    text = expand_macros("$(Build.BuildId) $(build.buildid) $(pwd) $((1+2)) $HOME", {"Build.BuildId": "7"})

    assert text == "7 7 $(pwd) $((1+2)) $HOME"


def test_a_variable_is_a_runtime_expression_as_a_whole_or_not_at_all() -> None:
    assert resolve("$[eq(variables['Build.Reason'], 'manual')]", EVALUATED) == "True"
    assert resolve("$[ variables.missing ]", EVALUATED) == ""
    assert resolve("a $[variables.missing]", EVALUATED) == "a $[variables.missing]"
