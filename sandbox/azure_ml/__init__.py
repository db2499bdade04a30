"""A local Azure: workspace, storage, jobs as processes, MLflow, model registry, scoring images, container instances, online endpoints."""
