"""A local Slack: Web API, signed delivery, Socket Mode, limits, and a page that looks and works like a channel."""
