"""Programs that a model wrote run where they can do no harm, and cannot say that they are right."""

import os
import socket
import time
from pathlib import Path

import pytest

from prt.errors import InputError
from prt.sandbox.programs import CodeEval, run

CONTAINED = {
    "the network": "import socket; socket.create_connection(('127.0.0.1', PORT), 1)",
    "a file elsewhere": "open('FOLDER/made', 'w')",
    "reading elsewhere": "open('FOLDER/secret').read()",
    "the interpreter's files": "import sys; open(sys.prefix + '/made', 'w')",
    "forking": "import os; os.fork()",
    "threads": "import threading; threading.Thread(target=print).start()",
    "another program": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])",
    "other processes": "import os; os.kill(PARENT, 0)",
    "the process of the tests": "import os; assert os.getpid() == 1 and os.getppid() == 0; os.kill(2, 0)",
    "the environment": "import os; assert 'PATH' in os.environ",
    "memory": "x = bytearray(4 << 30)",
    "a large file": "open('large', 'w').write('x' * (17 << 20))",
    "leaving early": "import sys; sys.exit(0)",
    "leaving at once": "import os; os._exit(0)",
    "ending itself": "import ctypes; ctypes.string_at(0)",
    "a wrong answer": "assert 1 + 1 == 3",
}
# Calls of the kernel by their numbers, the same on x86-64 and ARM64 but for the old ones.
REFUSED = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
OLD = {"x86_64": {"socket": 41, "unshare": 272, "add_key": 248, "keyctl": 250, "ptrace": 101, "prctl": 157},
       "aarch64": {"socket": 198, "unshare": 97, "add_key": 217, "keyctl": 219, "ptrace": 117, "prctl": 167}}
NUMBERS = OLD[os.uname().machine] | {"io_uring_setup": 425, "bpf": 321 if os.uname().machine == "x86_64" else 280}
AF_UNIX, AF_INET, AF_VSOCK, NEW_USER = 1, 2, 40, 0x10000000
for name, *arguments in (
    ("socket", AF_UNIX, 1, 0), ("socket", AF_INET, 1, 0), ("socket", AF_VSOCK, 1, 0), ("unshare", NEW_USER),
    ("io_uring_setup", 1, ctypes.create_string_buffer(120)), ("add_key", b"user", b"x", b"x", 1, -3),
    ("keyctl", 0, -3, 1), ("bpf", 0, 0, 0), ("ptrace", 0, 0, 0, 0), ("prctl", 1, 0, 0, 0, 0),
):
    assert libc.syscall(NUMBERS[name], *arguments) == -1 and ctypes.get_errno() == errno.EPERM, name
"""
# What a program may say or do in place of an answer. All of them are asked for f(1) == 2, and none computes it.
FORGED = {
    "printing": "print('ready\\npassed', flush=True)",
    "every descriptor": """
import os
for d in range(99):
    try:
        os.ftruncate(d, 0)
    except OSError: pass
    try:
        os.write(d, b'ready\\npassed')
    except OSError: pass
""",
    "closing all": "import os\nos.closerange(0, 99)",
    "its callers": """
import sys
frame = sys._getframe()
while frame:
    for name, value in list(frame.f_locals.items()) + list(frame.f_globals.items()):
        for said in (b'passed', 'passed', 'passed\\n'):
            try:
                value.write(said); value.flush()
            except Exception: pass
    frame = frame.f_back
""",
    "a traceback's frames": """
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
while frame.f_back:
    frame = frame.f_back
    frame.f_globals.update(run=lambda *_: 'passed', pack=lambda *_: {'verdict': 'passed'})
""",
    "other functions to write with": "import os\nos.write = lambda d, b: len(b)\nos._exit = lambda code: None",
    "other JSON": "import json\njson.dumps = lambda value: '{\"value\": true}'",
    "leaving with success": "import os\nos._exit(0)",
    "leaving when asked": "import os\ndef f(x): os._exit(0)",
    "something at the end": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "equal to everything": """
class All(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = None
def f(x): return All()
""",
    "an object equal to everything": """
class All:
    def __eq__(self, other): return True
    def __getattr__(self, name): return lambda *_: True
def f(x): return All()
""",
    "other built-in functions": "import builtins\nbuiltins.AssertionError = builtins.abs = print\ndef f(x): return 9",
    "built-in functions of its own": "def abs(x): return 0\ndef f(x): return 9",
    "a module of its own": "class math:\n    isclose = lambda *_: True\n    fabs = lambda _: 0\ndef f(x): return 9.0",
    "a module that was changed": "math.isclose = lambda *_: True\nmath.fabs = lambda _: 0\ndef f(x): return 9.0",
    "tests of its own": "def check(f): pass\ndef f(x): return 9",
    "what it finds in memory": """
import gc
def f(x):
    secret = ''.join(['secret of ', 'the tests'])
    texts = [str(o) for o in gc.get_objects() if isinstance(o, (str, list, dict, tuple))]
    if any(secret in text for text in texts): return 2
""",
    "another answer than was asked for": "def f(x): raise SystemExit('passed')",
}
ASKS = """
def check(candidate):
    "secret of the tests"
    assert candidate(1) == 2
    assert abs(candidate(1) - 2) < 1e-6
    assert math.fabs(candidate(1) - 2) < 1e-6 and math.isclose(candidate(1), 2)
check(f)
"""


@pytest.mark.parametrize("what", CONTAINED)
def test_they_are_contained(what: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = CONTAINED[what].replace("PORT", str(server.getsockname()[1]))
        program = program.replace("FOLDER", str(tmp_path)).replace("PARENT", str(os.getpid()))
        assert run(program).startswith("failed")
        assert run("", program).startswith("failed") or what == "the process of the tests"  # nor what came as tests
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_what_the_kernel_refuses() -> None:
    assert run(REFUSED) == "passed"
    assert run("", REFUSED) == "passed"


@pytest.mark.parametrize("what", FORGED)
def test_they_cannot_say_that_they_are_right(what: str) -> None:
    assert run("import math\n" + FORGED[what], ASKS).startswith("failed: ")
    assert run("import math\ndef f(x): return x + 1", ASKS) == "passed"


def test_the_limit_is_the_limit() -> None:
    assert run("while True: pass", seconds=0.5) == "failed: TimeoutError: not done within 0.5 seconds"
    start = time.monotonic()
    deaf = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.alarm(1)\n"
    deaf += "while True:\n try:\n  while True: pass\n except BaseException: pass"
    for program, tests in ((deaf, ""), ("", deaf), (f"def f():\n {deaf.replace(chr(10), chr(10) + ' ')}", "f()")):
        assert run(program, tests, seconds=0.5) == "failed: TimeoutError: not done within 0.5 seconds"
    assert time.monotonic() - start < 9


def test_those_that_work() -> None:
    good = "import os\nopen('note', 'w').write('x')\nassert open('note').read() == 'x' and os.getcwd() == '/sandbox'"
    assert run(good) == "passed"
    assert run("import os\nassert os.listdir() == []") == "passed"  # nothing is left by the one before
    programs = [["def f(): return 1", "def f(): return 2", "def f(): return 3"], ["def f(): return 2"] * 3]
    shares, said = CodeEval().compute(["assert f() > 1", "assert f() == 1"], programs, [1, 2, 5])
    assert shares == {"pass@1": pytest.approx(1 / 3), "pass@2": 0.5}  # of three programs, two are right: 1 − 0/3
    assert said[0] == ["failed: AssertionError: ", "passed", "passed"]


def test_no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the kernel says no (here: to a folder that cannot be its root), nothing is run."""
    monkeypatch.setattr("prt.sandbox.programs._folders", lambda: [str(tmp_path / "missing")])
    with pytest.raises(InputError, match=r"allows no sandbox .*No such file.*user.max_user_namespaces"):
        run("pass")
