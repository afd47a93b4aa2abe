"""Tasks, encoders, training sets, the Lightning module, baselines, evaluation, export."""
