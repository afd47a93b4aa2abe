"""Behaviour sequences as first-class Feast features: exact at any point in time, online as offline."""
