"""Predictor, services, and how a bundle is built and verified."""
