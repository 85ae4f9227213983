"""Other libraries' notes, which are none of the user's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

TALKATIVE = ("tensorflow", "absl", "tf2onnx")


@contextmanager
def quiet() -> Iterator[None]:
    """No notes and warnings of TALKATIVE libraries until the block ends; all of them with `-v`."""
    if logging.getLogger("startup_ray").isEnabledFor(logging.DEBUG):
        yield
        return
    import tensorflow as tf  # noqa: F401 - loggers that are asked for before it makes them are of another class

    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was
