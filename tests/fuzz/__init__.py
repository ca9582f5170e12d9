"""Thousands of requests, mutated from valid ones: none may crash, hang, be the server's fault, or be silently wrong."""
