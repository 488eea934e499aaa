"""What vLLM is not given, because it would end with a page of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prt.engine.folder import published
from prt.errors import InputError

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"head_dim": 26}, r"has attention heads of size 26, and vLLM's on a CPU are of 32, 64, .*; use a GPU, or prt"),
        (
            {"architectures": ["OwnForCausalLM"]},
            "vLLM has no text model for the architecture of .*, OwnForCausalLM; use",
        ),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantised, .*; take the original"),
    ],
)
def test_models_that_vllm_has_nothing_for(
    family: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    folder = shutil.copytree(family / "target", tmp_path / "target")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=complaint):
        published(str(folder))
