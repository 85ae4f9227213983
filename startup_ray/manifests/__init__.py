"""Readers of manifests: a module for each form, and what they share. They are opened by `startup_ray/manifest.py`."""
