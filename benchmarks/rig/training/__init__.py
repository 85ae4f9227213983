"""Contestants of `training.py`: nets, worker processes, Ray drivers, results."""
