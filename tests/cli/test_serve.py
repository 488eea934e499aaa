"""`prt serve` where vLLM is not there, or too old; what it does where it is, see tests/engine."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

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


def test_with_a_vllm_that_is_too_old(prt: Prt, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ModuleType("vllm.version")
    version.__dict__.update(__version__="0.9.2", __version_tuple__=(0, 9, 2))
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.version", version)
    code, _, said = prt(*ASKED)
    assert code == 1
    assert said.startswith("prt: error: vLLM 0.9.2 is too old; install 0.32 or newer")
