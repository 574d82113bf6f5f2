"""Processes: the supervisor and its children, and the API in front of them."""
