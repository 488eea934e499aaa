"""Programs that a model wrote run where they can do no harm."""

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
    "other processes": "import os; os.kill(PARENT, 0)",
    "the environment": "import os; assert 'PATH' in os.environ",
    "memory": "x = bytearray(4 << 30)",
    "a large file": "open('large', 'w').write('x' * (17 << 20))",
    "leaving early": "import sys; sys.exit(0)",
    "leaving at once": "import os; os._exit(0)",
    "ending itself": "import os, signal; os.kill(0, signal.SIGKILL); raise SystemExit",
    "a wrong answer": "assert 1 + 1 == 3",
}


@pytest.mark.parametrize("what", CONTAINED)
def test_they_are_contained(what: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = CONTAINED[what].replace("PORT", str(server.getsockname()[1]))
        program = program.replace("FOLDER", str(tmp_path)).replace("PARENT", str(os.getpid()))
        assert run(program).startswith("failed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_those_that_never_end() -> None:
    start = time.monotonic()
    assert run("while True: pass", seconds=0.5) == "failed: TimeoutError: not done within 0.5 seconds"
    deaf = "while True:\n try:\n  while True: pass\n except BaseException: pass"
    assert run(deaf, seconds=0.5).startswith("failed")
    assert time.monotonic() - start < 15


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
