"""What Hydra finds by itself because it lies in this namespace: points through Ray, searches through Optuna."""
