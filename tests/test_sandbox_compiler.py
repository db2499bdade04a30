"""From pipeline YAML to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from sandbox.azure_devops.compiler import compile as compile_pipeline
from sandbox.azure_devops.plan import BadPipeline, Plan

Compile = Callable[..., Plan]


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Compiles `ci/pipeline.yml`, with other files beside it."""

    def plan_of(
        text: str,
        parameters: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Plan:
        for name, content in {"ci/pipeline.yml": text, **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(dedent(content))
        return compile_pipeline(tmp_path, "ci/pipeline.yml", parameters or {}, variables or {})

    return plan_of


def titles(plan: Plan) -> list[str]:
    return [step.title for stage in plan.stages for job in stage.jobs for step in job.steps]


def test_a_pipeline_of_steps_is_one_job_that_checks_out_first(compiled: Compile) -> None:
    plan = compiled(
        """
        steps:
          - script: make
            displayName: Build
            name: build
            env: {COLOUR: blue}
            workingDirectory: src
            timeoutInMinutes: 3
            continueOnError: true
            condition: always()
          - bash: echo
            enabled: false
        """,
        variables={"Build.Repository.Name": "ml", "Build.SourceBranchName": "main"},
    )

    (stage,) = plan.stages
    (job,) = stage.jobs
    checkout, build = job.steps
    assert (plan.name, stage.name, job.name) == ("$(Date:yyyyMMdd).$(Rev:r)", "__default", "Job")
    assert (checkout.task, checkout.title, checkout.inputs) == ("checkout", "Checkout ml@main to s", {"repository": "self"})
    assert (build.task, build.title, build.name) == ("script", "Build", "build")
    assert (build.inputs, build.env) == ({"script": "make", "workingDirectory": "src"}, {"COLOUR": "blue"})
    assert (build.timeout_minutes, build.continue_on_error, build.condition) == (3, True, "always()")


def test_stages_wait_for_the_one_before_unless_they_say_for_whom(compiled: Compile) -> None:
    plan = compiled(
        """
        stages:
          - {stage: a, jobs: [{job: one, steps: [{script: x}]}]}
          - {stage: b, jobs: [{job: one, steps: [{script: x}]}]}
          - {stage: c, dependsOn: A, jobs: [{job: one, steps: [{script: x}]}]}
          - {stage: d, dependsOn: [], jobs: [{job: one, steps: [{script: x}]}, {job: two, dependsOn: one, steps: [{script: x}]}]}
        """
    )

    assert [stage.depends_on for stage in plan.stages] == [(), ("a",), ("a",), ()]
    assert [job.depends_on for job in plan.stages[3].jobs] == [(), ("one",)]


def test_the_default_titles_are_the_service_s(compiled: Compile) -> None:
    plan = compiled(
        """
        steps:
          - checkout: none
          - script: x
          - bash: x
          - task: CopyFiles@2
          - publish: out
            artifact: a
          - download: current
            patterns: "*.json"
          - download: none
        """
    )

    assert titles(plan) == ["CmdLine", "Bash", "CopyFiles", "PublishPipelineArtifact", "DownloadPipelineArtifact"]
    assert plan.stages[0].jobs[0].steps[3].inputs == {"path": "out", "artifact": "a"}


def test_a_deployment_names_its_environment_and_runs_its_hooks_in_order(compiled: Compile) -> None:
    plan = compiled(
        """
        jobs:
          - deployment: ship
            environment: prod.cluster
            strategy:
              runOnce:
                postRouteTraffic: {steps: [{script: x, displayName: watch}]}
                deploy: {steps: [{script: x, displayName: deploy}]}
                preDeploy: {steps: [{script: x, displayName: before}]}
          - deployment: quiet
            environment: {name: qa}
            strategy: {runOnce: {deploy: {steps: [{download: none}, {checkout: self}]}}}
        """
    )

    ship, quiet = plan.stages[0].jobs
    assert (ship.environment, quiet.environment) == ("prod", "qa")
    assert [step.title for step in ship.steps] == ["before", "DownloadPipelineArtifact", "deploy", "watch"]
    assert [step.task for step in quiet.steps] == ["checkout"]


def test_parameters_choose_what_is_in_the_plan(compiled: Compile) -> None:
    text = """
        parameters:
          - {name: action, type: string, default: train, values: [train, promote]}
          - {name: fast, type: boolean, default: false}
          - {name: trees, type: number, default: 10}
        steps:
          - checkout: none
          - ${{ if eq(parameters.action, 'train') }}:
              - script: train
                displayName: train ${{ parameters.trees }}
          - ${{ elseif parameters.fast }}:
              - script: fast
                displayName: fast
          - ${{ else }}:
              - script: promote
                displayName: promote
          - script: x
            ${{ if not(parameters.fast) }}:
              displayName: slow ${{ parameters.fast }}
        """

    assert titles(compiled(text)) == ["train 10", "slow False"]
    assert titles(compiled(text, {"action": "promote", "fast": "TRUE"})) == ["fast", "CmdLine"]
    assert titles(compiled(text, {"ACTION": "promote"})) == ["promote", "slow False"]
    assert compiled(text, {"trees": "12"}).parameters == {"action": "train", "fast": "False", "trees": "12"}


def test_each_goes_through_lists_and_mappings(compiled: Compile) -> None:
    plan = compiled(
        """
        parameters:
          - name: names
            type: object
            default: [a, b]
          - name: settings
            type: object
            default: {alpha: 1, beta: {deep: 2}}
        steps:
          - checkout: none
          - ${{ each name in parameters.names }}:
              - script: x
                displayName: ${{ name }}
                env:
                  ${{ each pair in parameters.settings }}:
                    ${{ upper(pair.key) }}: ${{ convertToJson(pair.value) }}
        """
    )

    assert titles(plan) == ["a", "b"]
    assert plan.parameters["names"] == '["a", "b"]'
    assert plan.stages[0].jobs[0].steps[0].env == {"ALPHA": '"1"', "BETA": '{\n  "deep": "2"\n}'}


def test_templates_take_parameters_at_every_level(compiled: Compile) -> None:
    plan = compiled(
        """
        variables:
          - template: parts/variables.yml
            parameters: {who: ada}
        stages:
          - template: parts/stages.yml
            parameters:
              name: build
              steps:
                - script: given
                  displayName: given
        """,
        files={
            "ci/parts/variables.yml": """
                parameters: [{name: who, type: string}]
                variables: {owner: "${{ parameters.who }}"}
                """,
            "ci/parts/stages.yml": """
                parameters:
                  - {name: name, type: string}
                  - {name: steps, type: stepList, default: []}
                stages:
                  - stage: ${{ parameters.name }}
                    jobs:
                      - template: jobs.yml
                        parameters: {steps: "${{ parameters.steps }}"}
                """,
            "ci/parts/jobs.yml": """
                parameters: {steps: []}
                jobs:
                  - job: work
                    steps:
                      - checkout: none
                      - ${{ parameters.steps }}
                      - template: /shared/steps.yml@self
                """,
            "shared/steps.yml": """
                steps:
                  - script: x
                    displayName: for ${{ variables.owner }}
                """,
        },
    )

    assert (plan.stages[0].name, titles(plan)) == ("build", ["given", "for ada"])
    assert plan.variables == {"owner": "ada"}


def test_variables_add_up_from_the_run_to_the_job(compiled: Compile) -> None:
    plan = compiled(
        """
        variables:
          - {name: kind, value: "${{ variables['Build.Reason'] }}"}
          - {name: again, value: "${{ variables.kind }}!"}
        stages:
          - stage: a
            variables: {inner: "${{ variables.again }}"}
            jobs:
              - job: b
                variables: {late: "$[ variables.x ]"}
                steps: [{script: x, displayName: "${{ variables.inner }} $(kind)"}]
        """,
        variables={"Build.Reason": "Manual", "again": "lost"},
    )

    assert plan.variables == {"Build.Reason": "Manual", "kind": "Manual", "again": "Manual!"}
    assert plan.stages[0].variables == {"inner": "Manual!"}
    assert plan.stages[0].jobs[0].variables == {"late": "$[ variables.x ]"}
    assert titles(plan) == ["Checkout", "Manual! Manual"]


def test_what_came_in_as_a_value_is_never_read_as_an_expression(compiled: Compile) -> None:
    evil = "${{ variables.secret }} ' }} #"

    plan = compiled(
        """
        parameters: [{name: settings, type: string}]
        variables: {secret: hush}
        steps:
          - checkout: none
          - template: inner.yml
            parameters: {settings: "${{ parameters.settings }}", more: {deep: ["${{ parameters.settings }}"]}}
        """,
        {"settings": evil},
        files={
            "ci/inner.yml": """
                parameters: [{name: settings, type: string}, {name: more, type: object}]
                steps:
                  - script: x
                    env: {SETTINGS: "${{ parameters.settings }}", DEEP: "${{ parameters.more.deep[0] }}"}
                """
        },
    )

    assert plan.stages[0].jobs[0].steps[0].env == {"SETTINGS": evil, "DEEP": evil}


def test_a_value_may_be_chosen_by_itself(compiled: Compile) -> None:
    plan = compiled(
        """
        parameters: [{name: big, type: boolean, default: true}]
        variables:
          size:
            ${{ if parameters.big }}: large
            ${{ else }}: small
          extra:
            ${{ if not(parameters.big) }}: more
        steps: [{script: x}]
        """
    )

    assert plan.variables == {"size": "large", "extra": ""}


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"colour": "red"}, "Unexpected parameter 'colour'"),
        ({"action": "drop"}, "The 'action' parameter value 'drop' is not a valid value."),
        ({"action": ""}, "A value for the 'action' parameter must be provided."),
        ({}, "A value for the 'needed' parameter must be provided."),
        ({"fast": "maybe"}, "The 'fast' parameter is not a valid Boolean."),
        ({"trees": "many"}, "The 'trees' parameter is not a valid Number."),
    ],
)
def test_wrong_parameters_are_refused(compiled: Compile, parameters: dict[str, str], complaint: str) -> None:
    text = """
        parameters:
          - {name: action, type: string, default: train, values: [train, promote]}
          - {name: fast, type: boolean, default: false}
          - {name: trees, type: number, default: 1}
          - {name: needed, type: string}
        steps: [{script: x}]
        """
    given = {"needed": "x", **parameters} if parameters else {}

    with pytest.raises(BadPipeline) as refused:
        compiled(text, given)

    assert str(refused.value).startswith("/ci/pipeline.yml")
    assert str(refused.value).endswith(complaint)


ONE = "{job: j, steps: [{script: x}]}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stagez: []", "(Line: 1, Col: 1): Unexpected value 'stagez'"),
        ("steps: [{script: x, colour: red}]", "(Line: 1, Col: 21): Unexpected value 'colour'"),
        ("steps: [{skript: x}]", "(Line: 1, Col: 10): Unexpected value 'skript'"),
        ("steps: [{displayName: x}]", "A step needs a script, bash, checkout, task, publish, download or template"),
        ("steps: [{pwsh: x}]", "'pwsh' is not run by the sandbox"),
        ("resources: {}\nsteps: [{script: x}]", "'resources' is not run by the sandbox"),
        ("steps: [{task: Bash}]", "The task reference 'Bash' is invalid."),
        ("steps: [{script: x, condition: 'eq(1'}]", "Unexpected end of expression"),
        ("steps: [{script: x, condition: nope()}]", "Unrecognized value: 'nope'."),
        ("steps: [{script: x, timeoutInMinutes: soon}]", "The value 'soon' is not a valid Integer."),
        ("steps: [{script: x, enabled: perhaps}]", "The value 'perhaps' is not a valid Boolean."),
        ("steps: [{script: x, name: a-b}]", "Step 'a-b' has an invalid name."),
        ("steps: [{script: x, name: a}, {script: x, name: a}]", "The step name a appears more than once."),
        ("steps: [{checkout: other}]", "The repository 'other' is not declared in the resources of the pipeline."),
        ("steps: [{script: {}, env: x}]", "Expected a mapping"),
        ("steps: [{script: [x]}]", "Expected a scalar"),
        ("steps: {script: x}", "Expected a sequence"),
        ("steps: [x]", "Expected a mapping"),
        ("steps: [{script: '${{ parameters.nobody }}'}]", "Key not found 'nobody'"),
        ("steps: [{script: '${{ nobody }}'}]", "Unrecognized value: 'nobody'."),
        ("steps: [{'${{ else }}': []}]", "'else' follows no 'if'"),
        ("steps: [{script: x, '${{ if true }}': {script: y}}]", "'script' is already defined"),
        ("steps: [{'${{ each x of y }}': []}]", "Unexpected value '${{ each x of y }}'"),
        ("steps: [{'${{ each x in 1 }}': []}]", "Expected a sequence or a mapping to go through"),
        ("jobs: []\nsteps: []", "Unexpected value 'steps'"),
        ("name: x", "Required property is missing: stages, jobs or steps"),
        (f"stages: [{{stage: a-b, jobs: [{ONE}]}}]", "Stage 'a-b' has an invalid name."),
        (f"stages: [{{stage: a, jobs: [{ONE}]}}, {{stage: A, jobs: [{ONE}]}}]", "The stage name a appears more than once."),
        (f"stages: [{{stage: a, dependsOn: b, jobs: [{ONE}]}}]", "Stage a depends on unknown stage b."),
        (f"stages: [{{stage: a, dependsOn: a, jobs: [{ONE}]}}]", "The pipeline must contain at least one stage with no dependencies."),
        (
            f"stages: [{{stage: a, jobs: [{ONE}]}}, {{stage: b, dependsOn: c, jobs: [{ONE}]}}, {{stage: c, jobs: [{ONE}]}}]",
            "The stages b, c wait for each other.",
        ),
        ("stages: [{stage: a, jobs: []}]", "Stage a must contain at least one job with no dependencies."),
        ("stages: [{stage: a, jobs: [{job: j}]}]", "Required property is missing: steps"),
        ("jobs: [{deployment: d, environment: e, strategy: {canary: {}}}]", "'canary' is not run by the sandbox"),
        ("jobs: [{deployment: d, strategy: {runOnce: {deploy: {steps: []}}}}]", "Required property is missing: environment"),
        ("variables: [{group: secrets}]\nsteps: []", "'group' is not run by the sandbox"),
        ("variables: {x: '$[ eq( ]'}\nsteps: []", "Unexpected end of expression"),
        ("steps: [{template: ../../outside.yml}]", "File /../outside.yml not found in repository."),
        ("steps: [{template: none.yml}]", "File /ci/none.yml not found in repository."),
        ("steps: [{template: x.yml@other}]", "The repository 'other' is not declared"),
        ("steps: [{template: pipeline.yml}]", "The pipeline exceeded the maximum of 100 templates."),
        ("parameters: [{name: x, type: text, default: y}]\nsteps: []", "Unexpected value 'text'"),
        ("parameters: [{name: x, kind: text}]\nsteps: []", "Unexpected value 'kind'"),
        ("parameters: [{type: string}]\nsteps: []", "Required property is missing: name"),
        ("name: a\nname: b\nsteps: []", "(Line: 2, Col: 1): 'name' is already defined"),
        ("name: &a x\nsteps: []", "Anchors are not currently supported. Remove the anchor 'a'"),
        ("steps: [", "(Line: 1, Col: 9): "),
        ("- steps", "(Line: 1, Col: 1): Expected a mapping"),
        ("", "(Line: 1, Col: 1): Expected a mapping"),
    ],
)
def test_what_the_service_refuses_is_refused_with_its_place(compiled: Compile, text: str, complaint: str) -> None:
    with pytest.raises(BadPipeline) as refused:
        compiled(text)

    assert complaint in str(refused.value)
    assert "/ci/" in str(refused.value) or "not found in repository" in str(refused.value)


def test_a_template_takes_the_parameters_it_declares_and_no_others(compiled: Compile) -> None:
    inner = "parameters: [{name: needed, type: string}]\nsteps: [{script: x}]"

    with pytest.raises(BadPipeline, match=r"/ci/pipeline.yml \(Line: 1, Col: 55\): Unexpected parameter 'other'"):
        compiled("steps: [{template: inner.yml, parameters: {needed: x, other: y}}]", files={"ci/inner.yml": inner})
    with pytest.raises(BadPipeline, match="A value for the 'needed' parameter must be provided"):
        compiled("steps: [{template: inner.yml}]", files={"ci/inner.yml": inner})


def test_a_template_is_of_one_kind(compiled: Compile) -> None:
    with pytest.raises(BadPipeline, match=r"/ci/jobs.yml \(Line: 1, Col: 1\): Unexpected value 'jobs'"):
        compiled("steps: [{template: jobs.yml}]", files={"ci/jobs.yml": "jobs: []"})


@pytest.mark.parametrize(
    ("trigger", "ref", "changed", "starts"),
    [
        ("trigger: none", "refs/heads/main", ["a"], False),
        ("", "refs/heads/feature/x", ["a"], True),
        ("trigger: [main, release/*]", "refs/heads/release/1", ["a"], True),
        ("trigger: [main, release/*]", "refs/heads/other", ["a"], False),
        ("trigger: main", "refs/heads/main", ["a"], True),
        ("trigger: {branches: {include: ['*'], exclude: [wip/*]}}", "refs/heads/wip/1", ["a"], False),
        ("trigger: {branches: [main], paths: {include: [deploy, x.toml]}}", "refs/heads/main", ["deploy/ml/a.py"], True),
        ("trigger: {branches: [main], paths: {include: [deploy, x.toml]}}", "refs/heads/main", ["deployed.py", "y/x.toml"], False),
        ("trigger: {branches: [main], paths: {include: [deploy], exclude: [deploy/bot]}}", "refs/heads/main", ["deploy/bot/x"], False),
        ("trigger: {paths: {exclude: [docs], include: [docs/api]}}", "refs/heads/main", ["docs/api/x"], True),
        ("trigger: {paths: {exclude: [docs]}}", "refs/heads/main", ["docs/x", "src/x"], True),
        ("trigger: {paths: {exclude: [docs]}}", "refs/heads/main", ["docs/x"], False),
        ("trigger: [main]", "refs/heads/main", [], False),
    ],
)
def test_a_push_starts_a_run_if_its_branch_and_paths_are_wanted(
    compiled: Compile, trigger: str, ref: str, changed: list[str], starts: bool
) -> None:
    plan = compiled(f"{trigger}\nsteps: [{{script: x}}]")

    assert plan.starts_on_push(ref, changed) is starts
