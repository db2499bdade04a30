"""The world on a laptop: a local Slack, Azure DevOps, Azure ML and Entra that speak the real protocols and do the work.

Never imported by `bot` or `handlers`, and imports neither.
"""
