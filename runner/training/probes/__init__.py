"""Probes: functions that look inside a network while it trains."""
