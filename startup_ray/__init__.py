"""From a list of image URLs to a tested Keras 3 model, on a laptop or a Ray cluster.

Public names are loaded when they are first used (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from startup_ray.api import (
        evaluate_model,
        export_model,
        ingest_images,
        predict_images,
        search,
        train_model,
        write_report,
    )
    from startup_ray.data_api import audit_dataset, export_dataset, forget_items, undo_forgetting
    from startup_ray.dataset import Dataset
    from startup_ray.errors import StartupRayError
    from startup_ray.job import Job, schema
    from startup_ray.jobfile import load_job
    from startup_ray.runs import Run
    from startup_ray.session import connect

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Job",
    "Run",
    "StartupRayError",
    "__version__",
    "audit_dataset",
    "connect",
    "evaluate_model",
    "export_dataset",
    "export_model",
    "forget_items",
    "ingest_images",
    "load_job",
    "predict_images",
    "schema",
    "search",
    "train_model",
    "undo_forgetting",
    "write_report",
]

_HOME = {
    "Dataset": "dataset",
    "Job": "job",
    "Run": "runs",
    "StartupRayError": "errors",
    "audit_dataset": "data_api",
    "connect": "session",
    "evaluate_model": "api",
    "export_dataset": "data_api",
    "export_model": "api",
    "forget_items": "data_api",
    "ingest_images": "api",
    "load_job": "jobfile",
    "predict_images": "api",
    "schema": "job",
    "search": "api",
    "train_model": "api",
    "undo_forgetting": "data_api",
    "write_report": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
