"""Reading a tree of continuations."""

import pytest
import torch
from helpers.cutting import byte_level, random_model
from transformers import MistralConfig, MistralForCausalLM

from prt import combine
from prt.errors import InputError
from prt.language.models import Causal
from prt.language.tree import Tree

TOKENIZER = byte_level(300)
MODELS = [random_model(seed, TOKENIZER) for seed in (1, 2)]
PROMPT = torch.tensor([[5, 6, 7]])
SIZE = len(TOKENIZER)


def both(logits):
    return torch.stack([combine.log_probs(each) for each in logits])


@torch.no_grad()
def plainly(path):
    ids = torch.cat([PROMPT, torch.tensor([path], dtype=torch.long)], 1)
    return both([m.model(ids).logits[0, -1:, :SIZE] for m in MODELS])[:, 0]


def check(tree, path):
    torch.testing.assert_close(tree.logs(path), plainly(path), atol=1e-5, rtol=0)
    said = [plainly(path[:n])[:, token].double() for n, token in enumerate(path)]
    torch.testing.assert_close(tree.total(path), sum(said, torch.zeros(2).double()), atol=1e-5, rtol=0)


def test_every_path_of_a_tree_is_read_as_if_it_were_alone():
    tree = Tree(MODELS, both, PROMPT, SIZE)
    check(tree, ())
    first = [(9,), (9, 10, 11), (9, 12), (13, 14)]
    tree.read(first)
    for path in first:
        check(tree, path)
    assert (tree.costs.calls, tree.costs.rows) == (1, 6)
    tree.read([(9, 10), (13, 14)])  # known
    assert tree.costs.calls == 1
    tree.keep((9, 10, 11, 99))
    assert [tree.knows(p) for p in ((), (9,), (9, 10), (9, 10, 11), (9, 12), (13,))] == [True] * 4 + [False] * 2
    tree.read([(9, 10, 11, 15), (9, 16, 17)])
    for path in ((9, 10, 11, 15), (9, 16, 17), (9, 16)):
        check(tree, path)


def test_the_total_of_an_unread_path_is_a_bound():
    tree = Tree(MODELS, both, PROMPT, SIZE)
    bound = tree.total((9, 10, 11))
    assert bound.tolist() == pytest.approx(plainly(())[:, 9].tolist())
    tree.read([(9, 10, 11)])
    assert (tree.total((9, 10, 11)) < bound).all()


def test_a_network_that_forgets_positions_is_refused():
    config = MistralConfig(
        vocab_size=SIZE, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    with pytest.raises(InputError, match="mistral has layers that forget positions"):
        Tree([Causal("mistral", MistralForCausalLM(config), TOKENIZER)], both, PROMPT, SIZE)


def test_a_context_that_is_too_short_is_refused():
    tree = Tree(MODELS, both, PROMPT, SIZE)
    with pytest.raises(InputError, match="exceed the context of model1, 128 tokens"):
        tree.read([tuple([9] * 126)])
