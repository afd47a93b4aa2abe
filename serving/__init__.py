"""Predictor, services, and how a bundle is built and verified."""

import os

# ONNX Runtime's own builds tell their maker of every process and model as soon as they are imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
