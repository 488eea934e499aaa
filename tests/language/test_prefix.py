"""How probable a source finds the beginnings of its answer in another tokenizer's tokens."""

import itertools
from functools import cache

import pytest
import torch
from helpers.cutting import END, bpe, byte_level, random_model, sentencepiece
from torch.nn.functional import log_softmax
from transformers import LlamaForCausalLM

from prt import combine
from prt.language.prefix import FLOOR, Prefixes
from prt.language.text import Answer, Texts
from prt.language.tree import Tree

# Each token of the target's may begin in one of the source's and end in another.
SOURCE = bpe("abc", ("a", "b"), ("ab", "c"))
TARGET = bpe("abc", ("b", "c"), ("c", "a"))
LETTERS = range(2, 7)
PROMPT = [3, 4]


class Canonical(LlamaForCausalLM):
    """A model that writes nothing but what its tokenizer would: no b after a, no c after ab."""

    def forward(self, input_ids, **inputs):
        out = super().forward(input_ids=input_ids, **inputs)
        ids = SOURCE.convert_tokens_to_ids(["a", "b", "ab", "c"])
        logits, input_ids = out.logits.clone(), input_ids[:, -out.logits.shape[1] :]
        for before, after in (ids[:2], ids[2:]):
            logits[..., after] = logits[..., after].masked_fill(input_ids == before, -torch.inf)
        logits[..., [1, *range(7, logits.shape[-1])]] = -torch.inf  # nor control tokens
        out.logits = logits
        return out


def prefixes(networks, tokenizers, head, **options) -> Prefixes:
    source, target = (Answer(Texts("m", tokenizer), "", {tokenizer.eos_token_id}) for tokenizer in tokenizers)
    tree = Tree(networks, head, torch.tensor([PROMPT]), source.texts.size)
    return Prefixes(tree, source, target, **options)


def two(logits):
    """Two models of their own, as EFT's."""
    return torch.stack([combine.log_probs(each) for each in logits])


NETWORKS = [random_model(seed, SOURCE, Canonical) for seed in (1, 2)]


def exact() -> Prefixes:
    return prefixes(NETWORKS, (SOURCE, TARGET), two, floor=0, least=0, merging=0)


@cache
@torch.no_grad()
def next_logs(network: int, path: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[*PROMPT, *path]])
    return log_softmax(NETWORKS[network].model(ids).logits[0, -1].double(), -1)


def brute_force(tokens: tuple[int, ...], ended: bool = False) -> list[float]:
    """The same by adding up all answers of the source until the target's cut of the beginning is settled."""
    text = "".join(TARGET.convert_ids_to_tokens(tokens))
    sums = []
    for network in (0, 1):
        total, open_ = 0.0, [((), 0.0)]
        while open_:
            path, log = open_.pop()
            logs = next_logs(network, path)
            said = "".join(SOURCE.convert_ids_to_tokens(path))
            if TARGET.encode(said) == list(tokens) if ended else TARGET.encode(said)[: len(tokens)] == list(tokens):
                total += float((log + logs[0]).exp())
            for token in LETTERS:
                whole, after = said + SOURCE.convert_ids_to_tokens(token), float(log + logs[token])
                if after == -torch.inf or not (whole.startswith(text) or text.startswith(whole)):
                    continue
                if len(whole) <= len(text):
                    open_.append(((*path, token), after))
                elif not ended:  # no merge of the target's looks more than one letter ahead
                    total += float(torch.tensor(after).exp()) * (TARGET.encode(whole)[: len(tokens)] == list(tokens))
        sums.append(total)
    return sums


@pytest.mark.parametrize("length", [1, 2, 3])
def test_beginnings_are_as_probable_as_all_answers_of_the_source_say(length):
    nonzero = 0
    for tokens in itertools.islice(itertools.product(LETTERS, repeat=length), 0, None, length):
        found = exact()
        for token in tokens[:-1]:
            found.logs([token])
            found.take(token)
        got = found.logs([tokens[-1]])[:, 0].exp().tolist()
        assert got == pytest.approx(brute_force(tokens), abs=1e-6), TARGET.convert_ids_to_tokens(tokens)
        nonzero += got[0] > 0
    assert nonzero > 4  # tokens that the target's tokenizer would write


def test_the_next_tokens_and_the_end_share_a_beginning_among_them():
    found = exact()
    for token in TARGET.convert_tokens_to_ids(["bc", "a", "b"]):
        before = found.now.total
        logs = found.logs([0, *LETTERS])
        assert logs.logsumexp(1).tolist() == pytest.approx(before.tolist(), abs=1e-5)
        found.take(token)
    assert found.logs([0])[:, 0].exp().tolist() == pytest.approx(brute_force(found.other.ids, ended=True), abs=1e-6)


KINDS = {"bytes": byte_level(), "sentencepiece": sentencepiece()}


@pytest.mark.parametrize("text", ["Tom has 1234 pens.\n#### 12", " né, 你🙂", "Tom"])
@pytest.mark.parametrize("kinds", [("bytes", "sentencepiece"), ("sentencepiece", "bytes")], ids="-".join)
def test_over_an_answer_the_gains_are_the_log_ratio_of_the_answer(kinds, text):
    """Whatever the target's tokens are: first bytes of a character, digits in threes, a mark with its new line."""
    source, target = (KINDS[kind] for kind in kinds)
    networks = [random_model(seed, source) for seed in (1, 2)]
    found = prefixes(networks, (source, target), two, floor=0, least=1e-9, merging=1e-9)
    (ids,) = found.other.cuts([text.encode()])[0]
    gains = []
    for token in ids:
        gains.append(float(found.gains([token])))
        found.take(token)
    gains.append(float(found.gains([target.eos_token_id])))
    (path,) = found.own.cuts([text.encode()])[0]
    whole = torch.tensor([[*PROMPT, *path, source.eos_token_id]])
    said = [log_softmax(n.model(whole).logits[0, 1:-1, : len(source)], -1) for n in networks]
    first, second = (logs.gather(1, whole[0, 2:, None]).sum().item() for logs in said)
    assert sum(gains) == pytest.approx(first - second, abs=1e-3)
    assert torch.tensor(gains).isfinite().all()


def reward_on_itself(logits):
    reward, pretrained = logits
    return torch.stack([combine.prt(pretrained, reward), combine.log_probs(pretrained)])


def test_where_both_tokenizers_are_one_the_gains_are_the_reward():
    """Up to log Z, the same for every token; of those that the tokenizer would write."""
    tokenizer = KINDS["bytes"]
    networks = [random_model(seed, tokenizer) for seed in (1, 2)]
    found = prefixes(networks, (tokenizer, tokenizer), reward_on_itself)
    (ids,) = found.other.cuts(["Tom né 12".encode()])[0]
    for n, token in enumerate(ids):
        some = [token, *range(n, len(tokenizer) - 1, 11)]
        r = networks[0].model(torch.tensor([[*PROMPT, *ids[:n]]])).logits[0, -1, some].double()
        shift = r - found.gains(some)
        plain = [k for k, i in enumerate(some) if found._measured[i].plain]
        assert 0 in plain and len(plain) > 5
        assert shift[plain].max() - shift[plain].min() < 1e-4
        found.take(token)


def test_what_neither_network_of_the_source_finds_likely_gains_nothing():
    found = exact()
    floored = prefixes(found.tree.networks, (SOURCE, TARGET), two, floor=0.9, least=0, merging=0)
    bc = TARGET.convert_tokens_to_ids("bc")  # two tokens of the source
    theta, _ = found.logs([bc])[:, 0].tolist()
    assert float(floored.gains([bc])) == pytest.approx(theta - float(torch.tensor(0.9).log()), abs=1e-5)
    assert FLOOR == 1e-3 and END in TARGET.get_vocab()
