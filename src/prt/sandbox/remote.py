"""A program in one process, its tests in another: what the tests call is asked for over a pipe, as plain data.

So the program never sees its tests, and cannot reach what judges it; and a result that is compared is the tests' own
number, text or list, not an object of the program's that says it is equal to everything. The price: arguments are
copies, which the program cannot change for its tests, and a function of the tests' cannot be given to it.

Messages are lines of JSON. Stdlib imports alone: both ends run in the sandbox.
"""

import ast
import builtins
import importlib
import json
import operator
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, Any

SERIES: dict[str, Callable[[Iterable[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
# What the tests may do with an object of the program's that is no plain data.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, /, *arguments, **options: function(*arguments, **options),
    "get": getattr,
    "set": setattr,
    "item": operator.getitem,
    "list": list,
    "truth": bool,
    "length": len,
    "text": str,
}


def pack(value: Any, number: Callable[[Any], int]) -> Any:
    """A value as JSON; ``number`` gives what is no plain data a number."""
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else {"int": hex(value)}  # Python refuses very long decimals
    if isinstance(value, list):
        return [pack(each, number) for each in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key, number), pack(each, number)] for key, each in value.items()]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, (tuple, set, frozenset)):
        name = "tuple" if isinstance(value, tuple) else "set" if isinstance(value, set) else "frozenset"
        return {name: [pack(each, number) for each in value]}
    if isinstance(value, type) and value in vars(builtins).values():
        return {"type": value.__name__}
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return pack(value.item(), number)
    return {"object": number(value)}


def unpack(value: Any, numbered: Callable[[int], Any]) -> Any:
    """The value of what :func:`pack` made; ``numbered`` gives what has a number."""
    if isinstance(value, list):
        return [unpack(each, numbered) for each in value]
    if not isinstance(value, dict):
        return value
    [(name, inside)] = value.items()
    if name in SERIES:
        return SERIES[name](unpack(each, numbered) for each in inside)
    if name == "dict":
        return {unpack(key, numbered): unpack(each, numbered) for key, each in inside}
    if name == "type" and isinstance(kind := vars(builtins).get(inside), type):
        return kind
    readers = {"int": lambda text: int(text, 16), "bytes": bytes.fromhex, "complex": lambda pair: complex(*pair)}
    return readers.get(name, numbered)(inside)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """The program's end: run the program that the first request is, then do what the tests ask for."""
    objects: dict[int, Any] = {}

    def number(value: Any) -> int:
        objects[id(value)] = value
        return id(value)

    own: dict[str, Any] = {}

    def done(request: dict[str, Any]) -> Any:
        if "program" in request:
            exec(compile(request["program"], "program.py", "exec"), own)
            return list(own)
        if "name" in request:
            return own[request["name"]]
        arguments, options = unpack(request["arguments"], objects.__getitem__)
        return OPERATIONS[request["do"]](*arguments, **options)

    for line in requests:
        try:
            answer = {"value": pack(done(json.loads(line)), number)}
        except BaseException as error:  # SystemExit too
            answer = {"error": [type(error).__name__, str(error)[:1000]]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Program:
    """The tests' end."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests, self._answers = requests, answers
        self._objects: dict[int, Remote] = {}

    def _ask(self, **request: Any) -> Any:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            answer = json.loads(self._answers.readline())
        except (OSError, ValueError):
            raise RuntimeError("the program ended, or wrote what is no answer") from None
        if "error" in answer:
            raise _error(*answer["error"])
        return unpack(answer["value"], self._numbered)

    def _numbered(self, number: int) -> "Remote":
        return self._objects.setdefault(number, Remote(self, number))

    def started(self) -> None:
        """Wait until its process is confined.

        Raises:
            OSError: if it cannot be.
        """
        if (said := self._answers.readline()) != "\n":
            raise OSError(said.strip() or "no answer")

    def do(self, what: str, *arguments: Any, **options: Any) -> Any:
        """One of the ``OPERATIONS``.

        Raises:
            Exception: as it did there; RuntimeError if the program is gone.
        """
        return self._ask(do=what, arguments=pack([arguments, options], _number_of))

    def judge(self, program: str, tests: str) -> str:
        """Run a program and its tests; ``passed``, or what was raised."""
        try:
            defined = self._ask(program=program)
            tree = ast.parse(tests)
            taken, modules = _names(set(defined), tree)
            names = {name: self._ask(name=name) for name in taken}
            names |= {name: importlib.import_module(name) for name in modules}
            exec(compile(tree, "tests.py", "exec"), names)
        except BaseException as error:  # SystemExit too: the tests after it have not run
            return f"failed: {type(error).__name__}: {error}"
        return "passed"


class Remote:
    """An object of the program's, for its tests. It is equal to itself alone."""

    def __init__(self, program: Program, number: int) -> None:
        self.__dict__.update(_program=program, _number=number)

    def __call__(self, *arguments: Any, **options: Any) -> Any:  # noqa: D102
        return self._program.do("call", self, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return self._program.do("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.do("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._program.do("item", self, key)

    def __iter__(self) -> Any:
        return iter(self._program.do("list", self))

    def __len__(self) -> int:
        return self._program.do("length", self)

    def __bool__(self) -> bool:
        return self._program.do("truth", self)

    def __str__(self) -> str:
        return self._program.do("text", self)


def _error(kind: str, text: str) -> Exception:
    """The program's exception; one of its own kind becomes a RuntimeError."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        with suppress(TypeError):  # one that wants other arguments
            return known(text)
    return RuntimeError(f"{kind}: {text}")


def _number_of(value: Any) -> int:
    if not isinstance(value, Remote):
        raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")
    return value.__dict__["_number"]


def _names(defined: set[str], tests: ast.Module) -> tuple[set[str], set[str]]:
    """The names that the tests take from the program, and those that are modules.

    A module of the standard library is not the program's, nor is a built-in function, unless the tests name nothing
    else of the program's: then it is what they are about.
    """
    nodes = list(ast.walk(tests))
    used = {node.id for node in nodes if isinstance(node, ast.Name)} & defined
    modules = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules &= used & sys.stdlib_module_names
    own = used - modules
    return {name for name in own if not hasattr(builtins, name)} or own, modules
