"""Rewards and composed models on the Hugging Face hub: pushed in one commit, pulled whole, and nothing private in them.

huggingface_hub reads whether it may use the network when it is imported, so functions import it.
"""

import copy
import glob
import json
import os
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prt import hub, reward
from prt.atomic import file_hash, must_be_free, scratch, write_json, write_text
from prt.card import card, measurements
from prt.errors import InputError, first_line

CARD = "README.md"
# What an earlier push may have left in a repository; a licence or a picture stays.
OURS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", CARD)
# What transformers and PEFT say there may be a path.
SETTINGS = ("config.json", hub.ADAPTER_CONFIG, "tokenizer_config.json")
VOCABULARIES = ("tokenizer.json", "vocab.json")
VERBATIM = ("classes", "templates", "template", "files", "lora", "versions")
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")


def push(folder: Path, repository: str, *, private: bool = False, measured: Sequence[Path] = ()) -> str:
    """Push a reward, a fine-tuned model or a composed model to the hub, in one commit; the commit's address.

    Of the folder only what its manifest names is pushed, and a page made of it (:mod:`prt.card`). Paths of this machine
    become the names of what is there: of a model that was fetched, its name on the hub.

    Args:
        repository: OWNER/NAME; it is made if there is none.
        private: make it so that only its owner sees it; one that is there stays as it is.
        measured: tables ``transfer.csv`` of experiments, whose rows of this reward stand on the page.

    Raises:
        InputError: if the folder holds none of these or a file in it is missing or was changed, a file holds a token or
            a path of this machine, the repository holds something else or may not be written to, or the hub is out of
            reach.
    """
    manifest = reward.read_manifest(folder, reward.kind_of(folder))
    rows = measurements(list(measured), manifest)
    with reward.unchanged(folder, files_of(manifest)) as whole, scratch("push") as staged:
        public = _public(copy.deepcopy(manifest))
        for name in files_of(manifest):
            (staged / name).parent.mkdir(exist_ok=True)
            settings = _settings(whole / name)
            if settings is None:
                (staged / name).symlink_to((whole / name).resolve())
            else:
                write_text(staged / name, json.dumps(settings, indent=2) + "\n")
                public["files"][name] = file_hash(staged / name)
        write_json(staged / reward.MANIFEST, public)
        write_text(staged / CARD, card(public, repository, rows))
        names = sorted([*files_of(manifest), reward.MANIFEST, CARD])
        for name in names:
            _refuse_private(staged / name, folder / name, [Path.home(), Path.cwd(), folder.resolve().parent])
        return _commit(staged, names, repository, private)


def files_of(manifest: dict[str, Any]) -> dict[str, str]:
    """The files that a manifest belongs to: name → SHA-256."""
    return manifest["files"] if "files" in manifest else {reward.WEIGHTS: manifest["weights_sha256"]}


def _public(value: Any) -> Any:
    """A manifest without paths of this machine."""
    if isinstance(value, dict):
        return {key: inside if key in VERBATIM else _public(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_public(inside) for inside in value]
    return _name_of(value) if isinstance(value, str) else value


def _name_of(text: str) -> str:
    """What stands for a path: a fetched model's name on the hub, else what the file or folder is called."""
    if text.startswith("jsonl--"):  # a data set's name, made of its file's path
        return f"jsonl--{text.rpartition('--')[2]}"
    if text.startswith("huggingface--") and text.count("--") > 2:  # a folder's; OWNER/NAME has two
        return f"huggingface--{text.rpartition('--')[2]}"
    kind, path = re.fullmatch(r"([a-z][\w-]+:)?(.*)", text, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    if path.startswith("//"):  # an address on the web
        return text
    if not (path.startswith(("/", ".", "~")) or path.count("/") > 1 or ("/" in path and Path(path).exists())):
        return text
    known = hub.origin(Path(path)).get("repository") if Path(path).is_dir() else None
    return known or kind + Path(path).name


def _settings(file: Path) -> dict[str, Any] | None:
    """What a file of settings says without paths of this machine; None if it can stay as it is."""
    if file.name not in SETTINGS:
        return None
    said = json.loads(file.read_text(encoding="utf-8"))
    public = {
        key: _public(value) if key == "models" or key.endswith("name_or_path") else value for key, value in said.items()
    }
    return None if public == said else public


def _refuse_private(file: Path, origin: Path, places: Sequence[Path]) -> None:
    """Refuse a file with a token or a path of this machine in it; of weights, in what precedes the numbers."""
    with file.open("rb") as opened:
        if file.suffix == ".safetensors":
            content = opened.read(int.from_bytes(opened.read(8), "little"))
        else:
            content = opened.read()
    if TOKEN.search(content):
        raise InputError(f"{origin} holds what looks like a token of the hub, and is not pushed; take it out.")
    if file.name in VOCABULARIES:  # which hold any piece of text
        return
    for place in places:
        forms = {os.fsencode(place), json.dumps(str(place))[1:-1].encode()}
        if len(place.parts) > 1 and any(form + b"/" in content for form in forms):
            raise InputError(f"{origin} names a place on this machine, {place}, and is not pushed; take it out.")


def _commit(staged: Path, names: list[str], repository: str, private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

    api = HfApi()
    info: Any
    try:
        try:
            info = api.repo_info(repository, repo_type="model")
        except errors.RepositoryNotFoundError:
            api.create_repo(repository, repo_type="model", private=private or None, exist_ok=True)
            info = api.repo_info(repository, repo_type="model")
        there = {file.rfilename for file in info.siblings or []}
        if reward.MANIFEST not in there and any(not name.startswith(".") for name in there):
            raise InputError(
                f"{repository} of the hub holds something else (no {reward.MANIFEST}); push to another name."
            )
        stale = [name for name in there - set(names) if any(fnmatch(name, pattern) for pattern in OURS)]
        operations: list[Any] = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=staged / name) for name in names),
            *(CommitOperationDelete(path_in_repo=name) for name in sorted(stale)),
        ]
        message = "Push with portable-reward-tuning"
        done = api.create_commit(repository, operations, commit_message=message, parent_commit=info.sha)
    except InputError:
        raise
    except Exception as error:  # network, name, rights: many kinds
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"{repository} could not be pushed to ({first_line(error)})"
        if status in (401, 403):
            raise InputError(
                f"{why}: log in with `hf auth login` as one who may write there, or set HF_TOKEN, and push again."
            ) from error
        raise InputError(f"{why}; nothing of it is to be seen there: mend that, and push again.") from error
    return str(done.commit_url)


def pull(repository: str, out: Path) -> dict[str, Any]:
    """Download what :func:`push` pushed to a new folder; its manifest. What a killed one left, the next goes on with.

    Raises:
        InputError: if there is no such repository, it is gated or holds no reward, a file is missing or is another than
            the manifest says, or ``out`` is there or cannot be written.
    """
    must_be_free(out)
    with scratch("pull") as first:
        receipt = hub.download(repository, "model", first / "it", needed=[reward.MANIFEST])
        try:
            manifest = reward.read_manifest(first / "it", reward.kind_of(first / "it"))
        except InputError as error:
            raise InputError(str(error).replace(str(first / "it"), repository)) from error
    needed = [glob.escape(name) for name in (*files_of(manifest), reward.MANIFEST)]
    hub.download(repository, "model", out, revision=receipt["revision"], needed=needed, also=[CARD])
    try:
        with reward.unchanged(out, files_of(manifest)):
            return manifest
    except InputError as error:
        shutil.rmtree(out)
        raise InputError(
            f"what {repository} of the hub holds is not what its manifest describes ({str(error).rstrip('.')})."
        ) from error
