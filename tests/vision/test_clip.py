"""open_clip without the imports that nothing uses, and with them where a network needs them."""

import subprocess
import sys

SPARED = "import sys, torch, prt.vision.clip as c\nspared = {'timm', 'transformers', 'torch._dynamo'}\n"


def run(code: str) -> str:
    """What ``code`` prints in a process of its own, after the import."""
    return subprocess.run([sys.executable, "-c", SPARED + code], capture_output=True, text=True, check=True).stdout


def test_what_is_spared_is_there_when_it_is_needed() -> None:
    """Detection operators (which ask torch._dynamo), torch.compile, transformers, and open_clip's own writing."""
    code = """
assert not spared & set(sys.modules)
assert "torch._dynamo.utils" not in sys.modules
import torchvision.ops
pooled = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
assert torch.equal(pooled, torch.ones(1, 1, 2, 2))
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
assert "torch._dynamo" in sys.modules
from torchvision.ops.roi_align import is_compile_supported
from torch._dynamo.utils import is_compile_supported as own
assert is_compile_supported is not own
assert [is_compile_supported(d) for d in ("cpu", "cuda")] == [own(d) for d in ("cpu", "cuda")]
from transformers import AutoModel
print("done")
"""
    assert run(code) == "done\n"


def test_towers_of_other_libraries() -> None:
    """ConvNeXt, and a text tower of transformers from its configuration: by open_clip's own calls."""
    code = """
import open_clip
assert open_clip is c.open_clip
open_clip.create_model("ViT-S-32-alt")
assert not spared & set(sys.modules)
tower = open_clip.create_model("convnext_base").visual
assert type(tower) is open_clip.timm_model.TimmModel is open_clip.model.TimmModel
assert "transformers" not in sys.modules
from transformers import BertConfig
small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9)
text = open_clip.model.HFTextEncoder("bert", 4, small, "mean_pooler", "linear", pretrained=False)
assert type(text) is open_clip.hf_model.HFTextEncoder is open_clip.model.HFTextEncoder
print(tuple(text(torch.ones(2, 3, dtype=torch.int64)).shape))
"""
    assert run(code) == "(2, 4)\n"
