"""From a manifest to a dataset: fetch, decode, commit by chunk, seal. `pipeline.py` puts the parts together."""
