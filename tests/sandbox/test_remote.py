"""Tests ask a program in another process, and get plain data."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prt.sandbox.programs import run
from prt.sandbox.remote import pack, unpack

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.integers(1, 5).map(lambda i: i << 9999),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=3)
    | st.sets(st.integers() | st.text(), max_size=3) | st.frozensets(st.integers(), max_size=3),
    max_leaves=8,
)  # fmt: skip


def sent(value: object) -> object:
    """A value at the other end."""

    def none(_: object) -> int:
        raise AssertionError

    return unpack(json.loads(json.dumps(pack(value, none))), none)


@given(PLAIN)
def test_plain_data_come_as_they_are(value: object) -> None:
    there = sent(value)
    assert there == value
    assert type(there) is type(value)


def test_a_kind_of_its_own_becomes_the_kind_it_is_of() -> None:
    import collections

    import numpy as np

    pair = collections.namedtuple("pair", "a b")
    for value, plain in (
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (pair(1, 2), (1, 2)),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (bytearray(b"x"), b"x"),
        (int, int),
    ):
        there = sent(value)
        assert there == plain
        assert type(there) is type(plain)
    assert math.isnan(float(str(sent(math.nan))))


PROGRAM = """
import collections, math
from collections import deque
LIMIT = (1, 2.5)
class Own(Exception): pass
class Node:
    def __init__(self, value, *, left=None): self.value, self.left = value, left
    def __str__(self): return f"<{self.value}>"
def depth(node): return 0 if node is None else 1 + depth(node.left)
def same(node): return node
def squares(n): return (i * i for i in range(n))
def queue(*values): return deque(values)
def fails(kind):
    if kind == "unicode": b"\\xff".decode()
    raise ValueError("v") if kind == "value" else Own("o")
def sum(a, b): return 100 * a + b
"""


@pytest.mark.parametrize(
    "tests",
    [
        "assert LIMIT == (1, 2.5)",
        "node = Node(3, left=Node(4))\nassert depth(node) == 2 and node.value == 3 and str(node) == '<3>'",
        "node = Node(3)\nnode.left = Node(5)\nassert depth(node) == 2 and same(node) is node and same(node) == node",
        "assert list(squares(3)) == [0, 1, 4] and set(squares(2)) == {0, 1} and [*squares(2)] == [0, 1]",
        "q = queue(1, 2)\nassert len(q) == 2 and q[1] == 2 and 2 in q and not queue() and sorted(q) == [1, 2]",
        "try:\n fails('value')\n assert False\nexcept ValueError as error:\n assert str(error) == 'v'",
        "try:\n fails('own')\n assert False\nexcept RuntimeError as error:\n assert str(error) == 'Own: o'",
        "try:\n fails('unicode')\n assert False\nexcept RuntimeError as e:\n assert 'UnicodeDecodeError' in str(e)",
        "assert sum(1, 2) == 102",  # what the tests are about, though it has a built-in function's name
        "assert sum([depth(None), 2]) == 2",  # the built-in one
        "assert math.isclose(depth(None), 0)",
        "assert collections.Counter('aa') == {'a': 2}",
        "import re\nassert re.sub('a', 'b', 'a') == 'b'",
    ],
)
def test_what_tests_may_do(tests: str) -> None:
    assert run(PROGRAM, tests) == "passed"


def test_what_they_may_not() -> None:
    assert run("def f(g): return g()", "f(lambda: 1)").startswith("failed: TypeError: a function of the tests cannot")
    assert run("def f(): pass", "g()") == "failed: NameError: name 'g' is not defined"
    assert run("def f(): pass", "f(").startswith("failed: SyntaxError")
    assert run("def f(", "").startswith("failed: SyntaxError")
    assert run("def f(x): x.append(1)", "x = []\nf(x)\nassert x == []") == "passed"  # arguments are copies
