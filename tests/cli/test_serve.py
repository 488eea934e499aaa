"""`prt serve` where vLLM is not there, or too old; what it does where it is, see tests/engine."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

Prt = Callable[..., tuple[int, str, str]]
ASKED = ("serve", "--reward", "reward", "--target", "target")
pytestmark = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


def test_without_vllm(prt: Prt) -> None:
    code, out, said = prt(*ASKED)
    assert (code, out) == (1, "")
    assert said == (
        "prt: error: vLLM cannot be imported (ModuleNotFoundError: No module named 'vllm'); install vLLM 0.32 or newer "
        "in an environment of its own, with environment-vllm.yml.\n"
    )


def test_with_a_vllm_that_is_too_old(prt: Prt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm" / "version.py").write_text("__version__ = '0.9.2'\n__version_tuple__ = (0, 9, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, said = prt(*ASKED)
    assert code == 1
    assert said.startswith("prt: error: vLLM 0.9.2 is too old; install 0.32 or newer")
