"""Plugins that Hydra finds by this namespace: multirun jobs (points) through Ray, searches through Optuna."""
