"""Runs another package's command where transformers knows composed models: ``python -m prt.language COMMAND …``."""

import sys
from importlib.metadata import entry_points

import prt.language.composed  # noqa: F401  # it registers them
from prt.errors import InputError, known


def main() -> None:
    """Run a console script that is installed beside this package, such as ``transformers`` or ``lm_eval``."""
    scripts = {script.name: script for script in entry_points(group="console_scripts")}
    try:
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        known(name, scripts, "command")
        sys.argv = sys.argv[1:]
        sys.exit(scripts[name].load()())
    except InputError as error:
        print(f"prt: error: {error}", file=sys.stderr)
        sys.exit(1)


main()
