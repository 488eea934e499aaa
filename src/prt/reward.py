"""The portable reward: a folder with the network's weights (safetensors) and a manifest (JSON), no pickle.

A fine-tuned model (method ``ft``) has the same form: EFT's implicit reward is made of one.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from torch import Tensor, nn

from prt.atomic import check_finite, file_hash, read_json, read_tensors, scratch, write_json, write_tensors
from prt.class_names import ClassNames, Templates
from prt.errors import InputError, first_line, known
from prt.methods import METHODS, putting_on
from prt.recipe import Positive as Whole

MADE = ("ft", "prt")  # what others may have made, to be imported
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
PACKAGE = "portable-reward-tuning"
Positive = Annotated[float, Field(gt=0)]
# A file of the folder itself, not one elsewhere.
PlainName = Annotated[str, Field(pattern=r"^[\w-][^/\\\x00-\x1f]*$")]
PlainPath = Annotated[str, Field(pattern=r"^([\w-]+/)?[\w-][^/\\\x00-\x1f]*$")]  # or of one right below it


class _Versioned(BaseModel, strict=True, allow_inf_nan=False):
    kind: str
    versions: dict[str, str] = {}

    @field_validator("versions")
    @classmethod
    def _not_later(cls, versions: dict[str, str]) -> dict[str, str]:
        """A later version of this package may mean something else by what it wrote."""
        theirs, ours = (
            [int(part) for part in re.findall(r"\d+", text)[:2]]
            for text in (versions.get(PACKAGE, ""), version(PACKAGE))
        )
        if theirs > ours:
            raise ValueError(f"it is of version {versions[PACKAGE]} of this package; install that")
        return versions


class _Checked(_Versioned):
    method: Literal["ft", "prt", "adapted"]
    recipe: dict[str, Any] | None  # None of what others tuned, as all that is not known
    seed: int | None


class Preprocessing(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """What becomes of an image before a backbone sees it, in open_clip's words; what is not given is open_clip's."""

    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    size: Whole | Annotated[list[Whole], Field(min_length=2, max_length=2)] | None = None
    mode: Literal["RGB"] = "RGB"
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


class _Preprocessing(Preprocessing):
    size: Whole | Annotated[list[Whole], Field(min_length=2, max_length=2)]


class _Tower(BaseModel, strict=True):
    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: _Preprocessing
    weights: str | None = None  # the pretrained network's fingerprint


class _Data(BaseModel, strict=True):
    name: str
    fingerprint: str


class _Vision(_Checked):
    backbone: _Tower
    dataset: _Data | None
    shots: str | None
    alpha: float | None
    classes: ClassNames
    templates: Templates
    weights_sha256: str


class _Base(BaseModel, strict=True):
    name: str
    spec: str
    weights_sha256: str


class _Vocabulary(BaseModel, strict=True):
    sha256: str


class _Language(_Checked):
    alpha: float | None
    lora: dict[str, Any] | None
    base: _Base
    dataset: Any
    vocabulary: _Vocabulary
    template: Any
    files: dict[PlainName, str] = Field(min_length=1)


class _Part(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    folder: str = Field(pattern=r"^[\w-]+$")
    name: str
    weight: float


class _Composed(_Versioned):
    method: str
    models: list[_Part] = Field(min_length=1)
    files: dict[PlainPath, str] = Field(min_length=1)


# What must stand in a manifest, whatever else does: of rewards, and of a target with rewards on it.
MANIFESTS: dict[str, type[_Versioned]] = {"vision": _Vision, "language": _Language, "composed": _Composed}


def save(folder: Path, network: nn.Module, manifest: dict[str, Any]) -> None:
    """Write the weights of ``network`` and the manifest, which is last: a folder with a manifest is whole.

    ``manifest`` says kind, method, alpha, backbone, dataset and its fingerprint, classes in order, recipe and seed;
    package versions, the git commit and the weights' hash are added.
    """
    write_tensors(folder / WEIGHTS, network.state_dict(), {"kind": manifest["kind"]})
    added = {"weights_sha256": file_hash(folder / WEIGHTS)} | provenance("open_clip_torch")
    write_json(folder / MANIFEST, manifest | added)


def provenance(*packages: str) -> dict[str, Any]:
    """What made a reward: versions of this package, of torch and of ``packages``, and the git commit."""
    versions = {package: version(package) for package in (PACKAGE, "torch", *packages)}
    return {"versions": versions, "git_commit": _git_commit()}


def read_manifest(folder: Path, kind: str = "vision") -> dict[str, Any]:
    """Read and check the manifest of a reward of ``kind`` vision or language, or of a composed model.

    Raises:
        InputError: if it is missing, corrupt, incomplete or of another kind, or something in it is of the wrong type.
    """
    what = "composed model" if kind == "composed" else "reward"
    if not (folder / MANIFEST).is_file():
        made = "one was written to" if kind == "composed" else "a reward was tuned to"
        raise InputError(f"there is no {what} in {folder} (no {MANIFEST}); name a folder that {made}.")
    manifest = read_json(folder / MANIFEST, f"{what} manifest")
    if (theirs := manifest.get("kind", kind)) != kind:
        if "composed" in (theirs, kind):
            raise InputError(f"{folder} holds no {what}, but is of kind {theirs}; name another folder.")
        raise InputError(f"{folder} holds a {theirs} reward; use a {kind} reward on a {kind} model.")
    try:
        MANIFESTS[kind].model_validate(manifest)
    except ValidationError as error:
        place, _, why = first_line(error).partition(": ")
        wrong = f"lacks '{place}'" if error.errors()[0]["type"] == "missing" else f"has a damaged '{place}' ({why})"
        raise InputError(f"the {what} manifest {folder / MANIFEST} {wrong}; make it again.") from None
    return manifest


def kind_of(folder: Path) -> str:
    """What the folder of a reward or of a composed model says it is of: vision, language or composed.

    Raises:
        InputError: if there is no manifest, or it is corrupt or of something else.
    """
    if not (folder / MANIFEST).is_file():
        read_manifest(folder)  # which says so
    found = str(read_json(folder / MANIFEST).get("kind"))
    if found not in MANIFESTS:
        raise InputError(f"{folder / MANIFEST} is of no reward (kind {found}); name a folder with one.")
    return found


@contextmanager
def unchanged(folder: Path, files: Mapping[str, str]) -> Iterator[Path]:
    """A folder that has ``files`` of ``folder`` and nothing else, so that nothing that was not checked is read.

    Args:
        files: name → SHA-256.

    Raises:
        InputError: naming the first file that is missing or another; in what is raised inside, ``folder`` is named.
    """
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks its file {name}; copy it again from where it was made, or make it again.")
        if file_hash(folder / name) != sha256:
            raise InputError(
                f"the file {folder / name} is not the one its manifest describes; copy it again, or make it again."
            )
    with scratch("reward") as alone:
        for file in files:
            (alone / file).parent.mkdir(exist_ok=True)
            (alone / file).symlink_to((folder / file).resolve())
        try:
            yield alone
        except InputError as error:
            raise InputError(str(error).replace(str(alone), str(folder))) from error


def check_method(folder: Path, manifest: dict[str, Any], method: str) -> None:
    """Refuse to put what ``folder`` holds on a target by a method that is made for something else.

    Raises:
        InputError: if no folder can be put on a target by this method, or it adds a reward and this is a fine-tuned
            model, or the other way round.
    """
    known(method, [name for name, of in METHODS.items() if of.tuned], "method that puts a folder on a target,")
    fitting = putting_on(manifest["method"])
    if method not in fitting:
        holds = "a fine-tuned model (method ft), no reward" if manifest["method"] == "ft" else "a reward"
        raise InputError(
            f"{folder} holds {holds}: method {method} does not take it; use it with method {' or '.join(fitting)}."
        )


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
        InputError: if names, shapes or kinds of numbers differ, naming the first, or one is no finite number.
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
        if own[name].is_floating_point() != tensors[name].is_floating_point():
            raise InputError(f"the weights '{name}' in {path} are of type {tensors[name].dtype}; tune it again.")
    check_finite(tensors, f"the weights in {path}")
    network.load_state_dict(tensors)


@cache
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
