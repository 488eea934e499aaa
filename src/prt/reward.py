"""The portable reward: a folder with the network's weights (safetensors) and a manifest (JSON), no pickle.

A fine-tuned model (method ``ft``) has the same form: EFT's implicit reward is made of one.
"""

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from torch import Tensor, nn

from prt.atomic import file_hash, read_json, read_tensors, write_json, write_tensors
from prt.errors import InputError

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
_TEXTS = {"type": "array", "items": {"type": "string"}}
_TEXT = {"type": "string"}
# What must stand in a manifest, as JSON Schema.
SCHEMAS: dict[str, dict[str, Any]] = {
    "vision": {
        "required": [
            "kind",
            "method",
            "backbone",
            "dataset",
            "classes",
            "templates",
            "recipe",
            "seed",
            "weights_sha256",
        ],
        "properties": {
            "backbone": {
                "type": "object",
                "required": ["model_cfg", "preprocess_cfg"],
                "properties": {"model_cfg": {"type": "object"}, "preprocess_cfg": {"type": "object"}},
            },
            "classes": _TEXTS,
            "templates": _TEXTS,
        },
    },
    "language": {
        "required": [
            *("kind", "method", "alpha", "lora", "base", "dataset"),
            *("vocabulary", "template", "recipe", "seed", "files"),
        ],
        "properties": {
            "method": {"enum": ["ft", "prt"]},
            "alpha": {"type": ["number", "null"]},
            "lora": {"type": ["object", "null"]},
            "seed": {"type": "integer"},
            "base": {
                "type": "object",
                "required": ["name", "spec", "weights_sha256"],
                "properties": {"name": _TEXT, "spec": _TEXT, "weights_sha256": _TEXT},
            },
            "vocabulary": {"type": "object", "required": ["sha256"], "properties": {"sha256": _TEXT}},
            "files": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        },
    },
}


def save(folder: Path, network: nn.Module, manifest: dict[str, Any]) -> None:
    """Write the weights of ``network`` and the manifest, which is last: a folder with a manifest is whole.

    ``manifest`` says kind, method, alpha, backbone, dataset and its fingerprint, classes in order, recipe and seed;
    package versions, the git commit and the weights' hash are added.
    """
    write_tensors(folder / WEIGHTS, network.state_dict(), {"kind": manifest["kind"]})
    write_json(
        folder / MANIFEST,
        manifest
        | {
            "weights_sha256": file_hash(folder / WEIGHTS),
        }
        | provenance("open_clip_torch"),
    )


def provenance(*packages: str) -> dict[str, Any]:
    """What made a reward: versions of this package, of torch and of ``packages``, and the git commit."""
    versions = {package: version(package) for package in ("portable-reward-tuning", "torch", *packages)}
    return {"versions": versions, "git_commit": _git_commit()}


def read_manifest(folder: Path, kind: str = "vision") -> dict[str, Any]:
    """Read and check the manifest of a reward of ``kind`` vision or language.

    Raises:
        InputError: if it is missing, corrupt, incomplete or of another kind, or something in it is of the wrong type.
    """
    manifest = read_json(folder / MANIFEST, "reward manifest")
    if manifest.get("kind", kind) != kind:
        raise InputError(f"{folder} holds a {manifest['kind']} reward; use a {kind} reward on a {kind} model.")
    if missing := [key for key in SCHEMAS[kind]["required"] if key not in manifest]:
        raise InputError(f"the reward manifest {folder / MANIFEST} lacks '{missing[0]}'; tune the reward again.")
    if errors := list(Draft202012Validator(SCHEMAS[kind]).iter_errors(manifest)):
        place = errors[0].absolute_path[0]
        raise InputError(f"the reward manifest {folder / MANIFEST} has a damaged '{place}'; tune the reward again.")
    return manifest


def read_weights(folder: Path, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Read the weights that ``manifest`` belongs to.

    Raises:
        InputError: if they are missing, truncated, corrupt, or another manifest's.
    """
    tensors, _ = read_tensors(folder / WEIGHTS, "weight file")
    if file_hash(folder / WEIGHTS) != manifest["weights_sha256"]:
        raise InputError(f"the weight file {folder / WEIGHTS} is not the one its manifest describes; tune it again.")
    return tensors


def load_weights(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put ``tensors`` into ``network``.

    Raises:
        InputError: if names or shapes differ, naming the first.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        mine = tuple(own[name].shape) if name in own else None
        theirs = tuple(tensors[name].shape) if name in tensors else None
        if mine != theirs:
            raise InputError(
                f"the weights in {path} do not fit the backbone in its manifest: "
                f"'{name}' has shape {theirs}, not {mine}; tune it again."
            )
    network.load_state_dict(tensors)


def _git_commit() -> str | None:
    """The commit of this package's source, with "-dirty" where the source differs from it."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # a wheel in a repository of the user's is not of its commit
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # installed from a wheel, or no git
