"""open_clip and torchvision, from where all other modules take what they need: it spares a job half its start-up.

Importing them costs more than a small job's work, most of it for what few networks use. torchvision's detection
operators import torch._dynamo for a question that they ask when they are called: here a stand-in asks it. open_clip
imports timm (for image towers such as ConvNeXt) and transformers (for some text towers; and for writing captions, which
nothing here does), and allows for their absence: here they are imported when a network needs them.
"""

import importlib
from types import ModuleType
from typing import Any

from prt.vision.names import standing_in


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


_utils = ModuleType("torch._dynamo.utils")
_utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
with standing_in(**{_utils.__name__: _utils}):
    from torchvision.transforms import Compose, PILToTensor
with standing_in(timm=None, transformers=None):
    import open_clip
    from open_clip import hf_model, timm_model

__all__ = ["Compose", "PILToTensor", "open_clip"]


def _on_demand(module: ModuleType, name: str) -> None:
    """Let open_clip build a tower of class ``module.name``, and import the library that it lacks for it then."""

    def build(*arguments: Any, **options: Any) -> Any:
        kind = getattr(importlib.reload(module), name)
        setattr(open_clip.model, name, kind)
        return kind(*arguments, **options)

    setattr(open_clip.model, name, build)


if timm_model.timm is None:
    _on_demand(timm_model, "TimmModel")
if hf_model.transformers is None:
    _on_demand(hf_model, "HFTextEncoder")
