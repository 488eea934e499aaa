"""The Hugging Face hub: everything that is downloaded from it, and the data sets that were.

What is fetched appears whole or not at all: a folder is made aside and then renamed. What a killed download left, the
next one goes on with. huggingface_hub reads whether it may use the network when it is imported, so functions import it.
"""

import fnmatch
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from prt.atomic import fingerprint, must_be_free, read_json, write_json
from prt.errors import InputError, first_line, known

# What a folder was made from. ``datasets`` passes over hidden files.
ORIGIN = ".fetched.json"
ADAPTER_CONFIG = "adapter_config.json"  # what tells PEFT's adapter from a whole model
FETCH = "where there is a network, run `snakemake fetch`"

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

Kind = Literal["dataset", "model"]
_WORDS = {"dataset": "data set", "model": "model"}


def allow_network(allowed: bool) -> None:
    """Allow or forbid the hubs' libraries to use the network, whatever the environment says.

    They read these variables once, when they are imported.
    """
    for name in OFFLINE:
        os.environ[name] = "0" if allowed else "1"


def kind_of(source: str, kinds: Iterable[str], what: str) -> tuple[str, str]:
    """The two halves of a source of data, ``KIND:NAME``.

    Raises:
        InputError: for a kind that is not among ``kinds``; ``what`` says what they are kinds of.
    """
    kind, _, name = source.partition(":")
    if kind == "embedded":
        raise InputError(f"the source '{source}' has a new name: write 'miniature:{name}'.")
    known(kind, kinds, what)
    return kind, name


def download(
    repository: str,
    kind: Kind,
    folder: Path,
    *,
    revision: str = "main",
    needed: Sequence[str] = ("*",),
    also: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> dict[str, Any]:
    """Download files of a repository to ``folder``, unless it is there; what :func:`origin` then says of it.

    Args:
        needed: patterns of files; each must fit one.
        also: patterns of files that the repository may lack.
        ignore: patterns of files that are left out all the same.

    Raises:
        InputError: if there is no such repository or file, it is gated, or the download fails.
    """
    if folder.is_dir() and any(folder.iterdir()):  # Snakemake makes the folder of a file that is to come
        if (there := origin(folder).get("repository", repository)) != repository:
            raise InputError(f"{folder} holds {there}, not {repository}; choose another folder, or remove it.")
        return origin(folder)
    must_be_free(folder)
    from huggingface_hub import HfApi, hf_hub_download

    aside = folder.with_name(f".{folder.name}.part")
    try:
        info: Any = HfApi().repo_info(repository, repo_type=kind, revision=revision)
        files = [file.rfilename for file in info.siblings or []]
        for pattern in needed:
            if not fnmatch.filter(files, pattern):
                raise InputError(f"{repository} of the hub has no file {pattern} at {revision}; take another.")
        fitting = {file for pattern in (*needed, *also) for file in fnmatch.filter(files, pattern)}
        fitting -= {file for pattern in ignore for file in fnmatch.filter(files, pattern)}
        receipt = {"repository": repository, "revision": info.sha}
        if aside.exists() and origin(aside) != receipt:  # half of another revision
            shutil.rmtree(aside)
        write_json(aside / ORIGIN, receipt)
        for file in sorted(fitting):  # where the list of files does not come, snapshot_download takes half for all
            hf_hub_download(repository, file, repo_type=kind, revision=info.sha, local_dir=aside)
        shutil.rmtree(aside / ".cache")
        aside.rename(folder)
    except InputError:
        raise
    except Exception as error:  # network, name, licence, space: many kinds
        raise refusal(repository, kind, error) or InputError(
            f"the {_WORDS[kind]} {repository} could not be downloaded ({first_line(error)}); mend that, or go where "
            "there is a network, and fetch again."
        ) from error
    return receipt


def check_access(wanted: Iterable[tuple[str, Kind]]) -> None:
    """Ask the hub whether it would give these repositories.

    Raises:
        InputError: naming all that are gated, the first that there is none of, or why the hub is out of reach.
    """
    from huggingface_hub import HfApi, errors

    gated = []
    for repository, kind in wanted:
        try:
            HfApi().auth_check(repository, repo_type=kind)
        except errors.GatedRepoError:
            gated.append(_page(repository, kind))
        except errors.RepositoryNotFoundError as error:
            raise refusal(repository, kind, error) or error from None
        except Exception as error:  # no network, a hub that fails: many kinds
            raise InputError(
                f"the {_WORDS[kind]} {repository} is to be fetched, but the hub is out of reach ({first_line(error)}); "
                f"{FETCH}."
            ) from error
    if gated:
        raise InputError(
            f"{len(gated)} of what is to be fetched is gated: accept the licences at {', '.join(gated)}, then log in "
            "with `hf auth login` or set HF_TOKEN, and start again."
        )


def _page(repository: str, kind: Kind) -> str:
    return f"https://huggingface.co/{'datasets/' * (kind == 'dataset')}{repository}"


def refusal(repository: str, kind: Kind, error: BaseException) -> InputError | None:
    """What to answer if a repository is gated, unknown or out of reach, whatever error that became; else None."""
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    what = _WORDS[kind]
    if is_any(errors.GatedRepoError):
        return InputError(
            f"the {what} {repository} is gated: accept its licence at {_page(repository, kind)}, then log in with `hf "
            "auth login` or set HF_TOKEN, and fetch again."
        )
    if is_any(errors.RepositoryNotFoundError):
        return InputError(f"the Hugging Face hub has no {what} {repository}, or you may not see it; correct the name.")
    if is_any(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        return InputError(
            f"the {what} {repository} is not on this machine, and the hub is out of reach or switched off "
            "(HF_HUB_OFFLINE); go where there is a network, or in the pipeline run `snakemake fetch`."
        )
    return None


def refuse_code(spec: str) -> None:
    """Refuse a model or a tokenizer of transformers whose files want code of their own, or of the hub's, to be run.

    Args:
        spec: a folder, or a name on the hub.

    Raises:
        InputError: naming the file, and its key if it is not damaged.
    """
    from transformers.utils.hub import cached_file

    for name in ("config.json", "tokenizer_config.json"):
        path = cached_file(spec, name, _raise_exceptions_for_missing_entries=False)
        try:
            keys = list(_options(json.loads(Path(path).read_text(encoding="utf-8")))) if path else []
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON ({first_line(error)}); fetch or make it again.") from error
        for key in keys:
            raise InputError(
                f"{path} asks for code of its own by '{key}', and none is run here; take a model that transformers "
                "has itself, and if it is one, take the key out."
            )


def _options(described: Any) -> Iterator[str]:
    """The keys, at any depth, that make transformers run a file: of the folder, or of a repository of kernels."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(described, (dict, list)):
        inside = described.items() if isinstance(described, dict) else enumerate(described)
    for key, value in inside:
        names_kernels = str(key).endswith("_implementation") and "/" in str(value)
        if key == "auto_map" or names_kernels:
            yield str(key)
        yield from _options(value)


def origin(folder: Path) -> dict[str, Any]:
    """What a folder was made from; nothing is known of one that was put there by hand.

    Raises:
        InputError: if its receipt is damaged.
    """
    return read_json(folder / ORIGIN, "receipt") if (folder / ORIGIN).is_file() else {}


def fetch_dataset(name: str, downloads: Path) -> dict[str, Any]:
    """Download the data set OWNER/NAME into the folder of downloads; nothing for a folder. See :func:`download`."""
    return {} if Path(name).is_dir() else download(name, "dataset", place(name, downloads))


def folder_name(repository: str) -> str:
    """What a repository's own folder is called."""
    return repository.replace("/", "--")


def place(name: str, downloads: Path) -> Path:
    """Where a data set is: ``name`` itself if it is a folder, else where :func:`fetch_dataset` puts it."""
    return Path(name) if Path(name).is_dir() else downloads / "hub" / name


def working_copy(source: str, downloads: Path) -> Path:
    """Where ``datasets`` puts what it reads of a source, in a form of its own: :func:`drop_copy` when it is read."""
    return downloads / "huggingface" / fingerprint(source)[:16]


def drop_copy(source: str, downloads: Path) -> None:
    """Remove the working copy of a source, if there is one: it is as large as the source."""
    shutil.rmtree(working_copy(source, downloads), ignore_errors=True)


def load_dataset(name: str, downloads: Path, *, streaming: bool = False) -> Any:
    """The splits of a data set that was fetched, or of a folder that ``datasets.load_dataset`` takes.

    Args:
        streaming: its rows can be gone through one by one, and no :func:`working_copy` is made.

    Raises:
        InputError: if it is not there, or damaged.
    """
    import datasets

    folder = place(name, downloads)
    if not folder.is_dir():
        raise InputError(f"'{name}' is not in {folder}; {FETCH}.")
    try:
        copy = str(working_copy(f"huggingface:{name}", downloads))
        return datasets.load_dataset(str(folder), cache_dir=copy, streaming=streaming)
    except Exception as error:  # broken files, no data: datasets raises many kinds
        raise InputError(
            f"Hugging Face datasets cannot read {folder} ({first_line(error)}); delete the folder and make it again."
        ) from error
