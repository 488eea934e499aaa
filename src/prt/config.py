"""The configuration is checked before anything runs: keys and types by JSON Schema, names against each other."""

from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from prt.errors import InputError, known
from prt.language import is_missing
from prt.language.tasks import settings

# Named here, too, as prt.vision.datasets takes seconds to import.
MINIATURE = ("digits", "mnist")
PAPER = sorted(file.stem for file in (Path(__file__).parent / "vision" / "paper").glob("*.yaml"))


def check(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Refuse a configuration with unknown keys, values of the wrong type, or names of nothing.

    Raises:
        InputError: naming the place, and the nearest right name where there is one.
    """
    _shots_as_text(config)
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise InputError(_told(error))
    if "vision" in config:
        _check_vision(config["vision"])
    if "language" in config:
        _check_language(config["language"])


def _check_vision(vision: dict[str, Any]) -> None:
    """Refuse names of nothing in the vision half."""
    backbones, datasets = vision["backbones"], vision["datasets"]
    for dataset in datasets.values():
        kind, _, name = dataset["source"].partition(":")
        if kind == "miniature":
            known(name, MINIATURE, "miniature data set")
        if kind == "paper":
            known(name, PAPER, "data set of the paper")
    items = [item for item in ("figure6", "table5", "table7") if item in vision]
    for panel in [*vision["panels"], *(vision[item] for item in items)]:
        for name in (panel["source"], *panel["targets"]):
            known(name, backbones, "backbone")
    costs = vision.get("costs", {})
    for name in [*costs.get("training", []), *(name for pair in costs.get("inference", []) for name in pair)]:
        known(name, backbones, "backbone of costs")
    for name in vision.get("figure12", []):
        known(name, datasets, "data set of figure12")
    if set(vision.get("figure12", [])) == set(datasets):
        raise InputError("figure12 names all data sets, and leaves none for Figure 2: take one out, or figure12.")
    if "table5" in vision and f"{vision['table5']['dataset']}-noise" in datasets:
        raise InputError(
            f"a data set cannot be called '{vision['table5']['dataset']}-noise', as table5's noisy images are; "
            "choose another name."
        )
    for item in items:
        known(vision[item]["dataset"], datasets, f"data set of {item}")
        known(vision[item]["shots"], datasets[vision[item]["dataset"]]["shots"], f"number of shots of {item}")


def _check_language(language: dict[str, Any]) -> None:
    """Refuse names of nothing in the language half."""
    models, benchmarks = language["models"], language["benchmarks"]
    for name, own in benchmarks.items():
        settings(name, own)
    bars = language.get("bars", {})
    items = [(name, language[name]) for name in ("figure7", "table4", "table6") if name in language]
    for name, used in [(n, b) for n, item in [*bars.items(), *items] for b in item["benchmarks"]] + [
        (n, item["benchmark"]) for n, item in language.get("next_tokens", {}).items()
    ]:
        known(used, benchmarks, f"benchmark of {name}")
    for panel in [panel for item in [*bars.values(), *(item for _, item in items)] for panel in item["panels"]]:
        for name in (panel["source"], *panel["targets"]):
            known(name, models, "language model")
    for item in language.get("next_tokens", {}).values():
        for name in (item["source"], item["target"]):
            known(name, models, "language model")
    for name in [name for pair in language.get("table3", {}).get("pairs", []) for name in pair]:
        known(name, models, "language model of table3")
    for name, model in models.items():
        if "spec" in model and is_missing(model["spec"]):
            raise InputError(
                f"the language model '{name}' is to be in {model['spec']}, where there is no config.json; name a "
                "folder that a model was saved to, or one on the Hugging Face hub as OWNER/NAME."
            )
    for name, item in items:
        if language.get("in_one_job") and item.get("seeds", language["seeds"]) != language["seeds"]:
            raise InputError(f"with 'in_one_job' all runs have the same seeds; take those of {name} out.")
    if "table6" in language and "lora" not in language:
        raise InputError("table6 compares rewards tuned by LoRA, but the configuration has no 'lora': add it.")
    runs_code = [name for name, own in benchmarks.items() if settings(name, own)["code"]]
    if runs_code and not language.get("unsafe_code"):
        raise InputError(
            f"the benchmark {runs_code[0]} runs code that a model wrote, in a sandbox: set 'unsafe_code: true' in the "
            "configuration's 'language' if you want that, or take the benchmark out."
        )


def _shots_as_text(config: Any) -> None:
    """A number of shots may be written as a number; it is a name, as 'full' is."""
    try:
        vision = config["vision"]
        for dataset in vision["datasets"].values():
            dataset["shots"] = {str(shots): recipe for shots, recipe in dataset["shots"].items()}
        for item in (vision[name] for name in ("figure6", "table5", "table7") if name in vision):
            item["shots"] = str(item["shots"])
    except (KeyError, TypeError, AttributeError):
        return  # the schema tells what is missing or of the wrong kind


def _told(error: ValidationError) -> str:
    parent: Any = error.parent
    if parent is not None and parent.validator == "oneOf":
        error = parent  # what a backbone or a model may be is told as a whole
    place = ".".join(str(p) for p in error.absolute_path) or "the top level"
    rule: Any = error.validator_value
    here: Any = error.instance
    schema: Any = error.schema
    if error.validator == "additionalProperties":
        for key in here:
            known(key, schema.get("properties", {}), f"key in {place} of the configuration")
    if error.validator == "enum":
        known(here, rule, f"value of {place} of the configuration")
    if error.validator == "required":
        missing = next(key for key in rule if key not in here)
        return f"the configuration lacks '{missing}' in {place}: add it (see config/README.md)."
    if error.validator == "minimum":
        return f"{place} of the configuration is {here}, but must be {rule} or more."
    if error.validator == "oneOf":
        return f"{place} of the configuration needs {schema['description']}."
    if error.validator == "anyOf":
        return "the configuration has neither 'vision' nor 'language': add one (see config/README.md)."
    if error.validator == "not":
        return f"{place} of the configuration cannot be set there: {schema['description']}."
    return f"{place} of the configuration is wrong: {error.message} (see config/README.md)."
