"""Azure Pipelines YAML to a Plan: templates, parameters and `${{ }}` expressions, refused where the service refuses them.

https://learn.microsoft.com/azure/devops/pipelines/yaml-schema/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandbox.azure_devops.plan import Plan


def compile(root: Path, file: str, parameters: Mapping[str, str], variables: Mapping[str, str]) -> Plan:  # noqa: A001 - it compiles
    """The plan of the pipeline in `file` (relative to `root`) with these parameters; BadPipeline says what is wrong and where.

    `variables` are the run's own (predefined and set when queueing); the YAML's come on top of them.
    """
    raise NotImplementedError
