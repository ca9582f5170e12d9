"""The host's HTTP API."""
