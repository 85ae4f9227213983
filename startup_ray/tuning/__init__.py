"""Hyperparameter sweeps: many trainings, of which a few are trained to the end."""
