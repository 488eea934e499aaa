"""Reading and checking a configuration: unknown keys, values of the wrong type, names of nothing."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from prt.atomic import must_exist
from prt.config import Backbone, Config, Given, Language, Model, Panel, Part, Together, Vision
from prt.errors import InputError, known
from prt.language import is_missing
from prt.language.recipe import Lora
from prt.language.recipe import Recipe as LanguageRecipe
from prt.language.tasks import allow
from prt.methods import METHODS
from prt.plan.texts import check_chats
from prt.plan.tokenizers import check_tokenizers
from prt.plan.two_rewards import check_two_rewards
from prt.recipe import Recipe, Referring, Settings
from prt.vision.catalogue import NAMES
from prt.vision.names import check_spec

# A key that was renamed → what to write in its place; a dot stands for a level.
RENAMED = {
    "vision.seeds_in_one_job": "'jobs: few' at the top level",
    "language.in_one_job": "'jobs: few' at the top level",
}
# Methods that every pair is measured with, and those that a language configuration may name beside them.
ALWAYS = ("pretrained", "prt", "eft", "source_ft")
FURTHER = [
    name
    for name, of in METHODS.items()
    if name not in ALWAYS and not of.of_texts and not of.any_variant and all(n.model != "adapted" for n in of.networks)
]


def read_config(paths: list[Path]) -> Config:
    """Read and check a configuration file, with others on top of it: the later one's keys win, at every level.

    Raises:
        InputError: if one is missing or no YAML, or as :func:`checked`.
    """
    content: dict[str, Any] = {}
    for path in paths:
        must_exist(path, "configuration")
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # also of dates and long numbers
            said = " ".join(str(error).split())
            raise InputError(f"the configuration {path} cannot be read ({said}); mend it.") from None
        if not isinstance(found, dict):
            raise InputError(f"the configuration {path} must be a mapping of keys to values (see config/README.md).")
        content = _on_top(content, found)
    return checked(content)


def _on_top(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two mappings in one, as Snakemake merges its configuration files."""
    both = {
        key: _on_top(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both


def checked(content: Any) -> Config:
    """The configuration with its defaults.

    Raises:
        InputError: for unknown keys, values of the wrong type, or names of nothing, naming the place, and the nearest
            right name where there is one.
    """
    if not isinstance(content, dict):
        raise InputError("the configuration must be a mapping of keys to values (see config/README.md).")
    for key, now in RENAMED.items():
        half, _, name = key.partition(".")
        if isinstance(content.get(half), dict) and name in content[half]:
            raise InputError(f"the configuration's key '{key}' is now {now}: write that in its place.")
    try:
        _check_numbers(content, [])
        config = Config.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentence(error)) from None
    except RecursionError:
        raise InputError("the configuration holds itself, or is nested without end; write it out.") from None
    if config.vision is None and config.language is None:
        raise InputError("the configuration has neither 'vision' nor 'language': add one (see config/README.md).")
    if config.vision is not None:
        _check_vision(config.vision)
    if config.language is not None:
        _check_language(config.language)
    config = _in_fp32(config) if config.device == "cpu" else config
    return _apart(config) if config.stand_ins else config


def _in_fp32(config: Config) -> Config:
    """The experiment in fp32: a CPU without instructions for bf16 is ten times slower in it, or more."""
    fp32 = {"precision": "fp32"}
    vision, language = config.vision, config.language
    if vision is not None:
        vision = vision.model_copy(update={"recipe": vision.recipe | fp32})
    if language is not None:
        language = language.model_copy(update={"recipe": language.recipe | fp32})
        if (lora := language.lora) is not None:
            lora = lora.model_copy(update={"recipe": lora.recipe | fp32})
            language = language.model_copy(update={"lora": lora})
    return config.model_copy(update={"vision": vision, "language": language})


def _check_numbers(part: Any, path: list[str]) -> None:
    """Refuse NaN and infinity wherever they stand, also in what is handed on to others."""
    if isinstance(part, float) and not math.isfinite(part):
        raise InputError(f"{'.'.join(path)} of the configuration is {part}, but must be a finite number.")
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in inner:
        _check_numbers(value, [*path, str(key)])


def _apart(config: Config) -> Config:
    """Stand-ins in a folder of their own among the downloads, so that neither is ever taken for the other."""
    halves = {"vision": config.vision, "language": config.language}
    moved = {
        name: half.model_copy(update={"downloads": f"{half.downloads}/stand-ins"})
        for name, half in halves.items()
        if half is not None
    }
    return config.model_copy(update=moved)


def recipe_of(given: Given, place: str, forbidden: dict[str, str] | None = None) -> Recipe:
    """A training recipe of what is ``given``.

    Raises:
        InputError: naming the key, its place in the configuration, and why it is refused.
    """
    return _built(Recipe, given, place, forbidden or {})


def _built(kind: type[Settings], given: Given, place: str, forbidden: dict[str, str]) -> Any:
    for key, why in forbidden.items():
        if key in given:
            raise InputError(f"{place}.{key} of the configuration cannot be set there: {why}.")
    for key in given:
        known(key, kind.model_fields, f"key in {place} of the configuration")
    return _placed(place, lambda: kind(**given))


def _placed(place: str, check: Callable[..., Any], *given: Any) -> Any:
    try:
        return check(*given)
    except InputError as error:
        raise InputError(f"{place} of the configuration: {error}") from None


def _check_references(given: Given, place: str, models: Iterable[str], kind: str) -> None:
    """Refuse a reward that is to be tuned beside a model that there is none of."""
    for name in given.get("references", []):
        known(name, models, f"{kind} in {place}.references of the configuration")


ONE_PRECISION = {"precision": "set it in vision.recipe, for the whole experiment"}
FURTHER_ON = {"references": "a reward is tuned further beside what it was tuned beside; take it out"}
PRETRAINING = {
    "precision": "pretraining is in fp32; take it out",
    "augment": "the corpus says how its examples are augmented; take it out",
    **dict.fromkeys(Referring.model_fields, "nothing is pretrained beside another model; take it out"),
}


def _check_pretraining(of: Backbone | Model, place: str) -> None:
    """Refuse a pretraining that cannot be, or that is to end after its last iteration."""
    recipe = recipe_of(of.recipe or {}, f"{place}.recipe", PRETRAINING)
    if of.stop is not None and of.stop > recipe.steps:
        raise InputError(f"{place}.stop of the configuration is {of.stop}, but its recipe has {recipe.steps} steps.")


def _check_vision(vision: Vision) -> None:
    """Refuse names of nothing, and recipes that cannot be, in the vision half."""
    backbones, datasets = vision.backbones, vision.datasets
    for name, dataset in datasets.items():
        place = f"vision.datasets.{name}"
        _check_source(dataset.source, f"{place}.source")
        for shots, given in dataset.shots.items():
            recipe_of(given, f"{place}.shots.{shots}", ONE_PRECISION)
            recipe_of(vision.recipe | given, f"{place}.shots.{shots}")
            _check_references(given, f"{place}.shots.{shots}", backbones, "backbone")
    recipe_of(vision.recipe, "vision.recipe")
    _check_references(vision.recipe, "vision.recipe", backbones, "backbone")
    for name, variant in vision.variants.items():
        place = f"vision.variants.{name}.recipe"
        recipe_of(variant.recipe, place, ONE_PRECISION)
        _check_references(variant.recipe, place, backbones, "backbone")
    for name, backbone in backbones.items():
        if backbone.paper is not None:
            known(backbone.paper, BACKBONES, f"value of vision.backbones.{name}.paper of the configuration")
        if backbone.spec is not None:
            _placed(f"vision.backbones.{name}.spec", check_spec, backbone.spec)
        if backbone.recipe is not None:
            _check_pretraining(backbone, f"vision.backbones.{name}")
    for panel in [*vision.panels, *vision.items.values()]:
        for name in panel.models:
            known(name, backbones, "backbone")
    if vision.costs is not None:
        for name in [*vision.costs.training, *(name for pair in vision.costs.inference for name in pair)]:
            known(name, backbones, "backbone of costs")
    for name in vision.figure12 or []:
        known(name, datasets, "data set of figure12")
    if set(vision.figure12 or []) == set(datasets):
        raise InputError("figure12 names all data sets, and leaves none for Figure 2: take one out, or figure12.")
    for name, item in vision.items.items():
        known(item.dataset, datasets, f"data set of {name}")
        known(item.shots, datasets[item.dataset].shots, f"number of shots of {name}")
    if vision.together is not None:
        _check_together(vision, vision.together)
    for of, shown in {"together": vision.together, "ageing": vision.ageing}.items():
        if shown is not None:
            _check_pairs(vision, of, shown)
    if vision.table5 is not None:
        recipe_of(vision.table5.recipe, "vision.table5.recipe", ONE_PRECISION | FURTHER_ON)
        noisy = f"{vision.table5.dataset}-noise"
        if noisy in datasets:
            raise InputError(
                f"a data set cannot be called '{noisy}', as table5's noisy images are; choose another name."
            )


def _check_together(vision: Vision, item: Together) -> None:
    """Refuse two rewards on a target of which something is not measured anyway."""
    for dataset in item.datasets:
        known(dataset, vision.datasets, "data set of together")
        known(item.shots, vision.datasets[dataset].shots, f"number of shots of together on {dataset}")
        if dataset == "both":
            raise InputError("together calls the mean of its data sets 'both'; choose another name for the data set.")


def _check_pairs(vision: Vision, name: str, item: Panel) -> None:
    """Refuse an item that shows a transfer which no panel has."""
    pairs = {(panel.source, target) for panel in vision.panels for target in panel.models}
    for target in item.targets:
        if (item.source, target) not in pairs:
            raise InputError(
                f"{name} puts rewards of '{item.source}' on '{target}', but no panel has that source with that "
                "target: add it to vision.panels."
            )


LENGTH = {"precision": "set it in language.recipe, for the whole experiment"}
MINIATURE = ("digits", "mnist")
# The names of the paper's models in its tables.
BACKBONES = tuple(
    f"{name} ({data})"
    for name, several in {
        "RN50": ["OpenAI"],
        "RN101": ["OpenAI"],
        "ViT-B-16": ["OpenAI", "LAION-400M", "LAION-2B"],
        "ViT-L-14": ["OpenAI", "LAION-400M", "LAION-2B"],
    }.items()
    for data in several
)
MODELS = tuple(
    f"{family}-{size}B"
    for family, sizes in {
        "Llama-2": "7 13",
        "Llama-3": "8",
        "Llama-3.1": "8",
        "Llama-3.2": "1 3",
        "Qwen2": "0.5",
        "Qwen2.5": "0.5 1.5 3 7 14",
        "Falcon3": "1 3 7 10",
    }.items()
    for size in sizes.split()
)
SOURCES = ("folder", "huggingface", "miniature", "paper", "torchvision")


def _check_source(source: str, place: str) -> None:
    """Refuse the source of an image data set that does not exist."""
    kind, _, name = source.partition(":")
    if kind == "embedded":
        raise InputError(f"{place} of the configuration is '{source}': 'embedded:' is now called 'miniature:'.")
    known(kind, SOURCES, f"kind of source in {place} of the configuration")
    if not name:
        raise InputError(f"{place} of the configuration is '{source}', but must be KIND:NAME, as in folder:PATH.")
    if kind == "miniature":
        known(name, MINIATURE, "miniature data set")
    if kind == "paper":
        known(name, NAMES, "data set of the paper")


def _check_language(language: Language) -> None:
    """Refuse names of nothing, and recipes that cannot be, in the language half."""
    models, benchmarks = language.models, language.benchmarks
    check_chats(language.data.source, "language.data.source")
    for name in language.methods:
        known(name, FURTHER, "value of language.methods of the configuration")
        if METHODS[name].at and language.strengths is None:
            raise InputError(
                f"'{name}' of language.methods has a strength that is chosen, but the configuration has no "
                "language.strengths: add those to choose among."
            )
    _built(LanguageRecipe, language.recipe, "language.recipe", {})
    _check_references(language.recipe, "language.recipe", models, "language model")
    for name, variant in language.variants.items():
        place = f"language.variants.{name}.recipe"
        _built(LanguageRecipe, variant.recipe, place, LENGTH)
        _built(LanguageRecipe, language.recipe | variant.recipe, place, {})
        _check_references(variant.recipe, place, models, "language model")
    if language.lora is not None:
        _built(Lora, language.lora.settings, "language.lora", {})
        _built(LanguageRecipe, language.lora.recipe, "language.lora.recipe", {})
        _built(LanguageRecipe, language.recipe | language.lora.recipe, "language.lora.recipe", {})
        _check_references(language.lora.recipe, "language.lora.recipe", models, "language model")
    for name, own in benchmarks.items():
        if own.get("data") == "embedded":
            raise InputError(f"'data: embedded' of the benchmark {name} is now called 'data: miniature'.")
        allow(name, own, language.unsafe_code)
    for name, item in language.transfers.items():
        for benchmark in item.benchmarks:
            known(benchmark, benchmarks, f"benchmark of {name}")
        if name == "ageing_language" and len(item.panels) > 1:
            raise InputError("ageing_language has several panels, but is one chain of targets: keep one of them.")
        for panel in item.panels:
            for used in panel.models:
                known(used, models, "language model")
    for name, figure in language.next_tokens.items():
        known(figure.benchmark, benchmarks, f"benchmark of {name}")
        for used in (figure.source, figure.target):
            known(used, models, "language model")
    for used in [name for pair in (language.table3.pairs if language.table3 else []) for name in pair]:
        known(used, models, "language model of table3")
    for name, model in models.items():
        if model.paper is not None:
            known(model.paper, MODELS, f"value of language.models.{name}.paper of the configuration")
        if model.recipe is not None:
            _check_pretraining(model, f"language.models.{name}")
        if model.spec is not None and is_missing(model.spec):
            raise InputError(
                f"the language model '{name}' is to be in {model.spec}, where there is no config.json; name a "
                "folder that a model was saved to, or one on the Hugging Face hub as OWNER/NAME."
            )
    check_tokenizers(language)
    check_two_rewards(language)
    if language.table6 is not None and language.lora is None:
        raise InputError("table6 compares rewards tuned by LoRA, but the configuration has no 'lora': add it.")


def _sentence(error: ValidationError) -> str:
    """The first of what is wrong, in one sentence."""
    first = error.errors()[0]
    kind, given = first["type"], first["input"]
    path = [part for part in first["loc"] if part != "[key]"]
    key = str(path[-1]) if path else ""
    place = ".".join(map(str, path)) or "the top level"
    above = ".".join(map(str, path[:-1])) or "the top level"
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        known(key, _fields(path[:-1]), f"key in {above} of the configuration")
    if kind == "missing":
        return f"the configuration lacks '{key}' in {above}: add it (see config/README.md)."
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ", ").split(",")]
        known(given, choices, f"value of {place} of the configuration")
    if kind == "greater_than_equal":
        return f"{place} of the configuration is {given}, but must be {context['ge']:g} or more."
    if kind == "value_error":
        return f"{place} of the configuration {context['error']} (see config/README.md)."
    return f"{place} of the configuration is {given!r}, which is wrong: {first['msg']} (see config/README.md)."


def _fields(path: list[Any]) -> list[str]:
    """The keys that the part of the configuration at ``path`` may have."""
    kind: Any = Config
    for key in path:
        kind = _bare(kind)
        kind = (
            kind.model_fields[key].annotation
            if isinstance(kind, type) and issubclass(kind, Part)
            else get_args(kind)[-1]
        )
    return list(_bare(kind).model_fields)


def _bare(annotation: Any) -> Any:
    """A type without what is annotated to it, and without None."""
    while get_origin(annotation) in (Annotated, UnionType):
        annotation = next(of for of in get_args(annotation) if of is not type(None))
    return annotation
