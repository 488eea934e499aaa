"""Class names and prompts, as a configuration, a manifest or a command gives them."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def spoken(templates: list[str]) -> list[str]:
    """Refuse prompts without a place for the class name (ValueError)."""
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"has the template {template!r} without {{}}: write that where the class name goes")
    return templates


def _class_names(given: Any) -> Any:
    names = [*given.keys(), *given.values()] if isinstance(given, dict) else given
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of two names or more, or a mapping of folders to names, with quoted numbers")
    told_apart(list(given.values()) if isinstance(given, dict) else given)
    return given


def told_apart(names: list[str]) -> list[str]:
    """Refuse class names of which one is empty, or there twice (ValueError)."""
    if not all(name.strip() for name in names):
        raise ValueError("has an empty class name: give it one")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the class name {twice!r} twice: tell the classes apart")
    return names


ClassNames = Annotated[list[str], Field(min_length=1), AfterValidator(told_apart)]
Classes = Annotated[list[str] | dict[str, str], BeforeValidator(_class_names)]
Templates = Annotated[list[str], Field(min_length=1), AfterValidator(spoken)]
