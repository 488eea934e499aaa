"""The house: no import runs up a layer, and no two files import each other."""

import ast
import itertools
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "prt"
# From the ground up; a module may import those of its own layer and of those below.
LAYERS = [
    ["errors"],
    ["methods", "combine", "objective", "theory", "stats", "classification", "advice", "class_names"],
    ["cell", "results", "atomic", "progress", "arrow", "recipe", "config", "together", "select", "machine"],
    ["tables", "scores"],
    ["reward", "training", "reference", "hub", "profiling", "slurm"],
    ["published", "pretrainings", "card"],
    ["sharing"],
    ["sandbox", "vision", "language", "engine", "miniature", "rehearsal"],
    ["plan"],
    ["figures", "doctor"],
    ["cli"],
]


def imported(file: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prt"):
            found |= {name(f"{node.module}.{alias.name}") or str(node.module) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("prt")}
    return found - {"prt"}


def name(path: str) -> str | None:
    """The module at a dotted path, if there is one."""
    place = PACKAGE.parent / path.replace(".", "/")
    return path if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() else None


FILES = {
    ".".join(["prt", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
IMPORTS = {module: imported(file) - {module} for module, file in FILES.items()}


def layer(module: str) -> int:
    top = module.split(".")[1]
    return next(number for number, names in enumerate(LAYERS) if top in names)


def test_every_module_has_a_layer() -> None:
    assert {module.split(".")[1] for module in FILES if module != "prt"} == set(itertools.chain(*LAYERS))


def test_no_import_runs_up() -> None:
    up = {
        (module, other)
        for module, others in IMPORTS.items()
        for other in others
        if module != "prt" and layer(other) > layer(module)
    }
    assert not up


def test_no_two_files_import_each_other() -> None:
    """Nor three in a circle: every module can be put after all that it imports."""
    left = dict(IMPORTS)
    while left:
        free = [module for module, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_no_file_is_long() -> None:
    assert not [str(file) for file in FILES.values() if len(file.read_text().splitlines()) > 400]
