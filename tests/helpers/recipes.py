"""Recipes to try."""

from typing import TypeVar

from prt.recipe import Settings

Kind = TypeVar("Kind", bound=Settings)


def but(settings: Kind, **changes: object) -> Kind:
    """The same settings but for some, checked as any."""
    return type(settings)(**settings.model_dump() | changes)
