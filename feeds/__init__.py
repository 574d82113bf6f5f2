"""Feeds: record kinds, the provider contract, sessions, transports, captures and the venue simulator."""
