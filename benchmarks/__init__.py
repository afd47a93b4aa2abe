"""Rerunnable measurements beside peers and limits."""
