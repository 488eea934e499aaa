"""What a file may tell open_clip about a network: options by name, none of which names code, or a file elsewhere.

A backbone's folder and a reward's manifest come from others. open_clip hands much of what they say on to other
libraries: the options of a tokenizer to transformers, where one of them runs a folder's own Python; the name of a text
tower to the Hugging Face hub.
"""

import re
from typing import Any

from prt.errors import InputError

_NETWORK = frozenset({
    "embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "quick_gelu", "custom_text", "init_logit_scale",
    "init_logit_bias", "nonscalar_logit_scale",
})  # fmt: skip
_TOWER = frozenset({
    "width", "layers", "mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type", "output_tokens", "act_kwargs",
    "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
    "scale_fc",
})  # fmt: skip
# The dictionaries in a network's description, by their path, and what may stand in each.
_KNOWN = {
    "": _NETWORK,
    "vision_cfg": _TOWER | {
        "head_width", "patch_size", "image_size", "patch_dropout", "attentional_pool", "attn_pooler_queries",
        "attn_pooler_heads", "no_ln_pre", "pos_embed_type", "timm_model_name", "timm_model_pretrained", "timm_pool",
        "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
    },
    "text_cfg": _TOWER | {
        "heads", "context_length", "vocab_size", "embed_cls", "pad_id", "eos_id", "no_causal_mask", "proj_bias",
        "proj_type", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs",
    },
    "multimodal_cfg": _TOWER | {
        "heads", "context_length", "vocab_size", "dim_head", "n_queries", "attn_pooler_heads",
    },
    "act_kwargs": {"approximate"},
    "norm_kwargs": {"eps"},
    "tokenizer_kwargs": {"clean", "strip_sep_token"},
}  # fmt: skip


def check(model_cfg: Any, where: str) -> None:
    """Refuse a description of a network, open_clip's ``model_cfg``, with an option that is not known to be harmless.

    Args:
        where: the file that it stands in.

    Raises:
        InputError: naming the option.
    """
    if not isinstance(model_cfg, dict):
        raise InputError(f"{where} has no 'model_cfg' that describes a network; write it again with open_clip.")
    parts: list[tuple[str, str, dict[str, Any]]] = [("", "model_cfg", model_cfg)]
    for name, path, options in parts:
        for key, value in options.items():
            if key not in _KNOWN[name]:
                raise InputError(
                    f"{where} has the option '{key}' in {path}, which is not among those that a file may set; take it "
                    "out, or take another backbone."
                )
            if isinstance(value, dict):
                if key not in _KNOWN:
                    raise InputError(f"{where} has more options in '{key}' of {path}, which has none; correct it.")
                parts.append((key, f"{path}.{key}", value))
        tower = options.get("timm_model_name")
        if tower is not None and not re.fullmatch(r"[\w.]+", str(tower)):  # else the hub or a folder is asked
            raise InputError(f"{where} names the image tower '{tower}', which is no name of timm's; correct it.")
