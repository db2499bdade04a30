"""A local Azure DevOps: the REST API its SDK speaks, an agent that runs the pipeline YAML, service hooks, and pages."""
