"""As much of kustomize as cluster/kuberay uses: resources, JSON patches (add), images, a namespace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches", "images"}


def build(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a kustomization, in the order of its resources."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert wanted.keys() <= KNOWN, wanted.keys() - KNOWN
    manifests = [manifest for name in wanted["resources"] for manifest in _read(folder / name)]
    for patch in wanted.get("patches", []):
        target = patch["target"]
        for manifest in manifests:
            if (manifest["kind"], manifest["metadata"]["name"]) == (target["kind"], target["name"]):
                for step in yaml.safe_load((folder / patch["path"]).read_text()):
                    _add(manifest, step)
    for image in wanted.get("images", []):
        _rename(manifests, image)
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = wanted["namespace"]
    return manifests


def _read(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        return build(path)
    # Through JSON, because what stands behind one anchor is one object: a change here would be a change there.
    manifests: list[dict[str, Any]] = json.loads(json.dumps(list(yaml.safe_load_all(path.read_text()))))
    return manifests


def _add(manifest: dict[str, Any], step: dict[str, Any]) -> None:
    """One `add` at the end of a list (RFC 6902)."""
    *way, last = step["path"].strip("/").split("/")
    assert (step["op"], last) == ("add", "-"), step
    place: Any = manifest
    for key in way:
        place = place[key]
    place.append(step["value"])


def _rename(value: Any, image: dict[str, str]) -> None:
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        if isinstance(child, dict) and child.get("image") == image["name"]:
            child["image"] = f"{image['newName']}:{image['newTag']}"
        _rename(child, image)
