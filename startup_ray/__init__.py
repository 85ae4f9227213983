"""From a list of image URLs to a tested Keras 3 model, on a laptop or a Ray cluster."""

__version__ = "0.1.0"
