"""A task of a user's own task file: lm-eval's, but what is wrong in the file is named."""

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import datasets
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from lm_eval.api.registry import aggregation_registry, filter_registry, metric_registry
from lm_eval.api.task import ALL_OUTPUT_TYPES, ConfigurableTask
from lm_eval.config.task import TaskConfig

from prt.errors import InputError, first_line, known

SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")


class OwnTask(ConfigurableTask):  # type: ignore[misc]
    """What lm-eval makes of a task file.

    Args:
        file: the task file, as the user named it; paths in a file are relative to its folder.
        config: the file's content, with what it includes, and its Python.

    Raises:
        InputError: naming the key of the file that is wrong, and its value.
    """

    def __init__(self, file: Path, config: dict[str, Any]) -> None:
        source = Path(config.get("metadata", {}).get("config_source", file))  # of a group, the file of a member
        self.file = file if not source.is_file() or source.samefile(file) else source
        self.title = f"the task {config['task']} of {self.file}"
        _check(self.title, config)
        self._locate(config)
        if config.get("process_docs") is not None:
            config["process_docs"] = self._processed(config["process_docs"])
        try:
            super().__init__(config=config)
        except InputError:
            raise
        except Exception as error:  # what lm-eval finds, and is not foreseen here
            raise InputError(f"{self.title} cannot be used ({first_line(error)}); correct the file.") from error

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the data.

        Raises:
            InputError: if there are none, or not the splits that the file names.
        """
        try:
            super().download(dataset_kwargs)
        except Exception as error:  # every format has errors of its own
            raise InputError(
                f"the data of {self.title} cannot be read ({first_line(error)}); correct its dataset_path "
                f"('{self.config.dataset_path}') and dataset_kwargs, or the data."
            ) from error
        if not isinstance(self.dataset, dict):
            raise InputError(f"the data of {self.title} are one split alone; take 'split' out of its dataset_kwargs.")
        for key in SPLITS:
            name = self.fewshot_cfg.split if key == "fewshot_split" else self.config[key]
            if name is not None and name not in self.dataset:
                raise InputError(
                    f"{self.title} says {key}: {name}, but its data have {', '.join(map(str, self.dataset))}; correct "
                    f"it, or say which files it is, as in data_files: {{{name}: FILE}}."
                )
            if name is not None and len(self.dataset[name]) == 0:
                raise InputError(f"{self.title} says {key}: {name}, which is empty; add examples or name another.")

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """The prompt of an example; see :meth:`_rendered`."""
        with self._rendered("doc_to_text", doc_to_text, doc):
            return super().doc_to_text(doc, doc_to_text)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """The answer to an example; see :meth:`_rendered`."""
        with self._rendered("doc_to_target", doc_to_target, doc):
            return super().doc_to_target(doc, doc_to_target)

    def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
        """The continuations to choose from; see :meth:`_rendered`."""
        with self._rendered("doc_to_choice", doc_to_choice, doc):
            return super().doc_to_choice(doc, doc_to_choice)

    def process_results(self, doc: Any, results: Any) -> Any:
        """The metrics of an answer; see :meth:`_rendered`."""
        with self._rendered("process_results", None, doc):
            return super().process_results(doc, results)

    def check_examples(self) -> None:
        """Make every filter, prompt and answer once, as what is wrong is best found before hours of decoding.

        Raises:
            InputError: naming the key that fails on an example.
        """
        try:
            for make in [make for pipeline in self._filters for make in pipeline.filters]:
                make()
        except Exception as error:  # an unknown argument, no regular expression
            raise InputError(f"filter_list of {self.title} fails ({first_line(error)}); correct it.") from error
        for example in self.eval_docs:
            self.doc_to_text(example)
            self.doc_to_target(example)
            if self.config.doc_to_choice is not None:
                self.doc_to_choice(example)

    @contextmanager
    def _rendered(self, key: str, given: Any, doc: Any) -> Iterator[None]:
        """What goes wrong is told as a fault of the file's ``key``: a template, a column, or Python.

        Raises:
            InputError: naming the key, and what examples have.
        """
        said = self.config[key] if given is None else given
        columns = ", ".join(map(str, doc))
        if isinstance(said, str) and said.isidentifier() and said not in self.features:
            raise InputError(f"{self.title} says {key}: {said}, but an example has {columns}; correct it.")
        try:
            yield
        except InputError:
            raise
        except TemplateSyntaxError as error:
            raise InputError(f"{key} of {self.title} is no template of Jinja ({error.message}); correct it.") from error
        except Exception as error:  # a template and Python can raise anything
            problem = error.message if isinstance(error, TemplateError) else first_line(error)
            raise InputError(f"{key} of {self.title} fails ({problem}); an example has {columns}.") from error

    def _processed(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The user's ``process_docs``, with its faults as the file's."""

        @wraps(function)
        def processed(docs: Any) -> Any:
            try:
                done = function(docs)
            except Exception as error:
                raise InputError(
                    f"process_docs of {self.title} fails ({first_line(error)}); the data have "
                    f"{', '.join(docs.column_names)}."
                ) from error
            if not isinstance(done, datasets.Dataset) or len(done) == 0:
                what = "no example" if isinstance(done, datasets.Dataset) else f"a {type(done).__name__}"
                raise InputError(f"process_docs of {self.title} gives {what}; it must give a Dataset with examples.")
            return done

        return processed

    def _locate(self, config: dict[str, Any]) -> None:
        """Make what the file says of local data absolute."""
        path, options = config.get("dataset_path"), dict(config.get("dataset_kwargs") or {})
        if path is None:
            return
        if path in FORMATS:
            if "data_files" in options:
                options["data_files"] = self._found("data_files", options["data_files"])
            if "data_dir" in options:
                options["data_dir"] = self._found("data_dir", options["data_dir"])
            config["dataset_kwargs"] = options
        elif path.startswith((".", "/", "~")) or (self.file.parent / path).exists():
            config["dataset_path"] = self._found("dataset_path", path)
        else:
            raise InputError(
                f"{self.title} says dataset_path: {path}, which is no format (such as json) and no folder in "
                f"{self.file.parent.resolve()}, and nothing is downloaded here: get it by `hf download --repo-type "
                f"dataset {path} --local-dir FOLDER`, and name FOLDER."
            )

    def _found(self, key: str, said: Any) -> Any:
        """Absolute paths of what ``key`` says: a path or a pattern, or lists or splits of them; addresses stay."""
        if isinstance(said, dict):
            return {split: self._found(key, value) for split, value in said.items()}
        if isinstance(said, list):
            return [self._found(key, value) for value in said]
        if "://" in str(said):
            return said
        folder = self.file.parent.resolve()
        path = folder / Path(str(said)).expanduser()
        if path.exists():  # data_files are patterns to the library, whatever they are called
            return glob.escape(str(path)) if key == "data_files" else str(path)
        pattern = str(Path(glob.escape(str(folder))) / Path(str(said)).expanduser())
        if not glob.glob(pattern, recursive=True):
            raise InputError(
                f"{self.title} says {key}: {said}, which is not there: a relative path in it is relative to its "
                f"folder, {folder}."
            )
        return pattern


def _check(title: str, config: dict[str, Any]) -> None:
    """Refuse names that lm-eval does not know, most of which it would not, or not clearly.

    Raises:
        InputError: naming the key and its value.
    """
    for key in config:
        known(key, [field.name for field in fields(TaskConfig)], f"key of {title},")
    if config.get("dataset_path") is None and config.get("custom_dataset") is None:
        raise InputError(f"{title} names no data: add its dataset_path, such as json; a group needs its tasks' files.")
    known(config.get("output_type", "generate_until"), ALL_OUTPUT_TYPES, f"output_type of {title},")
    if config.get("test_split") is None and config.get("validation_split") is None:
        raise InputError(f"{title} does not say which split is judged: add test_split, such as test_split: test.")
    for key in ("doc_to_text", "doc_to_target"):
        if config.get(key) is None and config.get("use_prompt") is None:
            raise InputError(f"{title} has no {key}: add it, such as a template with {{{{a column}}}}.")
    for metric in _entries(title, config, "metric_list", "metric"):
        name, aggregation = metric["metric"], metric.get("aggregation")
        if isinstance(name, str) and config.get("process_results") is None and not metric.get("hf_evaluate"):
            known(name, metric_registry, f"metric of {title},")
        if isinstance(aggregation, str):
            known(aggregation, aggregation_registry, f"aggregation of {title},")
    for pipeline in _entries(title, config, "filter_list", "filter", "name"):
        for step in _entries(title, pipeline, "filter", "function"):
            if isinstance(step["function"], str):
                known(step["function"], filter_registry, f"filter of {title},")


def _entries(title: str, config: dict[str, Any], key: str, *needed: str) -> list[dict[str, Any]]:
    """A list of mappings that each have what is needed."""
    entries = config.get(key) or []
    for entry in entries if isinstance(entries, list) else [entries]:
        for need in needed:
            if not isinstance(entry, dict) or need not in entry:
                raise InputError(f"{key} of {title} must be a list of entries with '{need}'; add it to {entry!r}.")
    return list(entries)
