"""vLLM gives what the composed model of transformers gives: the same greedy tokens, the same log-probabilities."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.sums import EXTRA

from prt.engine.folder import folder_for_vllm
from prt.engine.plugin import MODE
from prt.engine.serve import parts_of
from prt.language.decode import load_reward
from prt.miniature.text import tokenizer

pytestmark = pytest.mark.vllm

QUESTION = "Tom has 3 pens. Tom buys 4 more pens. How many pens does Tom have now?"
# The last is longer than what is read at once; two begin alike, for the cache of prefixes.
PROMPTS = [QUESTION, QUESTION + " Ann", "The", "A dog and a cat walk in the garden. " * 10]
NEW = 24


@pytest.mark.parametrize(
    ("folder", "method", "strength"), [("prt", "prt", 1.3), ("ft", "eft", 0.7), ("lora", "prt", 1.0)]
)
def test_equal_to_transformers(family: Path, folder: str, method: str, strength: float) -> None:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.exceptions import VLLMValidationError

    on = load_reward(family / folder, method=method).on(str(family / "target"), strength)
    ids = [tokenizer()(prompt).input_ids for prompt in PROMPTS]
    with ExitStack() as stack:
        parts = parts_of([(family / folder, None, strength)], str(family / "target"), method, stack)
        place = stack.enter_context(folder_for_vllm(parts, None))
        how: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "tokenizer_mode": MODE}
        engine = LLM(str(place), max_num_batched_tokens=64, max_num_seqs=4, **how)
        assert engine.llm_engine.model_config.max_model_len == 1024  # the shorter of the two
        wanted = SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, prompt_logprobs=0)
        answers = engine.generate([{"prompt_token_ids": each} for each in ids], wanted, use_tqdm=False)
        with pytest.raises(VLLMValidationError, match=r"the token '<\|extra\|>' .* one of the models has no row for"):
            engine.generate(EXTRA, wanted, use_tqdm=False)
        del engine
        cleanup_dist_env_and_memory()
    for prompt, answer in zip(ids, answers, strict=True):
        said = list(answer.outputs[0].token_ids)
        assert said == on.continued(torch.tensor([prompt]), NEW)[0, len(prompt) :].tolist()
        text = prompt + said
        with torch.no_grad():
            logs = on.composed.model(torch.tensor([text])).logits[0].log_softmax(-1)
        expected = [logs[i - 1, text[i]].item() for i in range(1, len(text))]
        found = [entry[i].logprob for entry, i in zip(answer.prompt_logprobs[1:], prompt[1:], strict=True)]
        found += [entry[i].logprob for entry, i in zip(answer.outputs[0].logprobs, said, strict=True)]
        assert found == pytest.approx(expected, abs=1e-4)
