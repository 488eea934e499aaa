"""Stand-ins for the tokenizers of four families: few tokens; each one's own kind, control tokens and chat template."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from prt.rehearsal.texts import conversations

MERGED = 200  # tokens of more than one byte

SYSTEM = "{% if messages[0]['role'] == 'system' %}"
TURNS = "{% for m in messages %}"
LLAMA_2_CHAT = (
    SYSTEM + "{% set s = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (s if loop.first else '') }}"
    "{{ m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3_CHAT = (
    "{{ bos_token }}"
    + TURNS
    + "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_CHAT = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    + TURNS
    + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FALCON_3_CHAT = (
    TURNS + "{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

QWEN_2 = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_2_5 = [
    *(f"<|{of}_{at}|>" for of in ("object_ref", "box", "quad") for at in ("start", "end")),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
QWEN_2_5_ORDINARY = [  # added, but no control tokens: decoding keeps them
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
]
FALCON_3 = [
    *(f">>{name}<<" for name in ("TITLE", "ABSTRACT", "INTRODUCTION", "SUMMARY", "COMMENT", "ANSWER", "QUESTION")),
    *(">>DOMAIN<<", ">>PREFIX<<", ">>SUFFIX<<", ">>MIDDLE<<", "<|endoftext|>", "<|pad|>"),
    *("<|system|>", "<|user|>", "<|assistant|>"),
]


def _reserved(first: int, last: int) -> list[str]:
    return [f"<|reserved_special_token_{i}|>" for i in range(first, last + 1)]


HEADER = ["<|start_header_id|>", "<|end_header_id|>"]
BEGINS = ["<|begin_of_text|>", "<|end_of_text|>"]
LLAMA_3 = {
    "Llama-3": [*BEGINS, *_reserved(0, 3), *HEADER, *_reserved(4, 4), "<|eot_id|>", *_reserved(5, 250)],
    "Llama-3.1": [
        *(*BEGINS, *_reserved(0, 1), "<|finetune_right_pad_id|>", *_reserved(2, 2), *HEADER),
        *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>", *_reserved(3, 247)),
    ],
}


@cache
def _learnt(bytewise: bool, first: tuple[str, ...] = ()) -> str:
    """A BPE as the library's JSON: of bytes, or of characters with ``▁`` for a space. ``first``: its first tokens."""
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if bytewise
        else pre_tokenizers.Metaspace(prepend_scheme="first")
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytewise else [chr(i) for i in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(first) + len(alphabet) + MERGED,
        special_tokens=list(first),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator((turn["content"] for turns in conversations() for turn in turns), trainer)
    return raw.to_str()


def _bpe(bytewise: bool, first: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tokens and merges."""
    model = json.loads(_learnt(bytewise, first))["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def _llama_2(instruct: bool) -> Any:
    """SentencePiece's kind: spaces are ``▁``, unknown characters become bytes, a beginning of sequence is put first."""
    first = ("<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)))
    return LlamaTokenizer(**_bpe(False, first), chat_template=LLAMA_2_CHAT if instruct else None)


def _bytewise(first: tuple[str, ...] = ()) -> Tokenizer:
    raw = Tokenizer(BPE(**_bpe(True, first), ignore_merges=True))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def _llama_3(version: str, instruct: bool) -> Any:
    raw = _bytewise()
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in LLAMA_3[version]])
    begin = BEGINS[0]
    raw.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B:1", special_tokens=[(begin, raw.token_to_id(begin))]
    )
    end, template = ("<|eot_id|>", LLAMA_3_CHAT) if instruct else (BEGINS[1], None)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=begin, eos_token=end, chat_template=template)


def _qwen(further: list[str], ordinary: list[str], instruct: bool) -> Any:
    """The template is the base model's, too."""
    words = Qwen2Tokenizer(**_bpe(True), eos_token=QWEN_2[2 if instruct else 0], chat_template=QWEN_CHAT)
    words.add_tokens([AddedToken(token, normalized=False, special=True) for token in [*QWEN_2, *further]])
    words.add_tokens([AddedToken(token, normalized=False) for token in ordinary])
    return words


def _falcon_3(instruct: bool) -> Any:
    """Control tokens have the first numbers."""
    raw = _bytewise(tuple(FALCON_3))
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in FALCON_3])
    template = FALCON_3_CHAT if instruct else None
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|pad|>", chat_template=template
    )


TOKENIZERS: dict[str, Callable[[bool], Any]] = {
    "Llama-2": _llama_2,
    "Llama-3": lambda instruct: _llama_3("Llama-3", instruct),
    "Llama-3.1": lambda instruct: _llama_3("Llama-3.1", instruct),
    "Qwen2": lambda instruct: _qwen([], [], instruct),
    "Qwen2.5": lambda instruct: _qwen(QWEN_2_5, QWEN_2_5_ORDINARY, instruct),
    "Falcon3": _falcon_3,
}
