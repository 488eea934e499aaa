"""What is tuned: a network beside the frozen reference of its loss.

Several GPUs: what is trained, and the frozen reference, are sharded over them.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prt.errors import InputError
from prt.language.chats import IGNORED
from prt.language.fit import fitted
from prt.language.loss import ft_loss, prt_loss
from prt.language.models import DTYPES, Causal, load, vocabulary
from prt.language.recipe import Lora, Recipe


class Tuned(nn.Module):
    """A trained network with the frozen reference of its loss, and the loss as its forward pass.

    They are one module so that what wraps it for several GPUs sees all of the work: with FSDP, the layers of both
    networks are sharded, each on its own, and the embeddings and output matrices, which belong to the root, are
    gathered for the whole forward pass, so that the chunked loss reads them directly.

    Args:
        network: what is trained; a PeftModel trains its adapter.
        method: ft or prt; ``alpha`` as in :func:`prt.language.loss.prt_loss`.
        size: tokens of the tokenizer; see :func:`prt.language.loss.ft_loss`.
        reference: the frozen pretrained model of prt; None: ``network`` is a PeftModel, and its base is the reference.
        further: further frozen models of the same vocabulary, that some conversations see in its place.
    """

    def __init__(
        self,
        network: Any,
        method: str,
        alpha: float,
        size: int,
        reference: PreTrainedModel | None = None,
        further: Sequence[PreTrainedModel] = (),
    ) -> None:
        super().__init__()
        self.network, self.method, self.alpha, self.size = network, method, alpha, size
        self.reference = None if reference is None else reference.requires_grad_(False).eval()
        self.further = nn.ModuleList(model.requires_grad_(False).eval() for model in further)
        self.exact = torch.zeros(())  # the last loss, as it was computed

    def train(self, mode: bool = True) -> "Tuned":
        """As for any module, but the reference stays as it is for inference."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        self.further.eval()
        return self

    def forward(
        self, labels: Tensor, items: float, beta: Tensor | None = None, model: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """The loss of a batch, a scalar: its sum over the tokens, by ``items``.

        Args:
            labels: (N, T), the token itself where it is learned, else ``IGNORED``.
            beta: how much of the reference each token's conversation sees, (N, T); None: 1.
            model: the number of the reference that it sees, (N, T): 0, or of a further one; None: 0.
            inputs: input_ids (N, T), and attention_mask of rows with padding, or position_ids of packed rows.
        """
        following = labels[:, 1:]
        learned = following != IGNORED
        truth = following[learned]

        def hidden(network: Any) -> Tensor:
            # With a cache, transformers takes packed rows for one sequence.
            states = backbone(network)(**inputs, use_cache=False).last_hidden_state
            return states[:, :-1][learned]

        if self.method == "ft":
            loss = ft_loss(hidden(self.network), head(self.network), truth, size=self.size, items=items)
        else:
            # With several processes all run all models, whichever their conversations see.
            frozen = self._frozen(hidden, [] if model is None else self.further)
            rewards = hidden(self.network), head(self.network)
            seen = (None if of is None else of[:, 1:][learned] for of in (beta, model))
            loss = prt_loss(
                *rewards, frozen, truth, self.alpha, size=self.size, items=items, beta=next(seen), model=next(seen)
            )
        self.exact = loss.detach()
        return loss

    def _frozen(self, hidden: Callable[[Any], Tensor], further: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
        """Hidden states and output matrix of the reference, and of further models."""
        with torch.no_grad():
            others = [(hidden(model), head(model)) for model in further]
            if self.reference is not None:
                return [(hidden(self.reference), head(self.reference)), *others]
            mode = self.network.training
            with self.network.disable_adapter():
                states = hidden(self.network.eval())
            self.network.train(mode)
            return [(states, head(self.network)), *others]


def causal(network: Any) -> PreTrainedModel:
    """The causal language model itself, where it is one with an adapter."""
    return network if isinstance(network, PreTrainedModel) else network.get_base_model()


def backbone(network: Any) -> Any:
    """The part of a causal language model that makes hidden states."""
    model = causal(network)
    return getattr(model, model.base_model_prefix)


def head(network: Any) -> Tensor:
    """The output matrix (V, d), which may be that of the embeddings, too."""
    return causal(network).get_output_embeddings().weight


def check(model: Causal, max_length: int) -> int:
    """Refuse a model that cannot be tuned here; the number of its tokenizer's tokens.

    Raises:
        InputError: if its context is shorter than ``max_length``, its output layer has not a row for each token, or its
            logits are more than the product of hidden states and output matrix.
    """
    network, size = model.model, vocabulary(model.tokenizer).size
    context = getattr(network.config, "max_position_embeddings", None)
    if context is not None and max_length > context:
        raise InputError(
            f"'max_length' of the recipe is {max_length}, but the context of {model.name} is {context}; lower it."
        )
    rows = len(head(network))
    if rows < size:
        raise InputError(
            f"the output layer of {model.name} has {rows} rows, but its tokenizer {size} tokens: their files do not "
            "belong together."
        )
    with torch.no_grad():
        ids = torch.arange(min(8, size), device=network.device)[None]
        states = backbone(network)(input_ids=ids, use_cache=False).last_hidden_state
        logits = network(input_ids=ids, use_cache=False).logits
        if not torch.allclose(states @ head(network).T, logits, rtol=0.02, atol=0.02 * float(logits.abs().max())):
            raise InputError(
                f"the output layer of {model.name} does more than a product with a matrix (a bias, a scale or a cap), "
                "which the loss in chunks does not know; take a model of the Llama, Qwen2 or Falcon3 class."
            )
    return size


def check_beside(model: Causal, other: Causal, max_length: int) -> None:
    """Refuse a further model of a loss whose tokens are not those of the model that is tuned, or as :func:`check`.

    Raises:
        InputError: naming what does not fit.
    """
    fitted(model, [other])
    check(other, max_length)
    rows, size = len(head(other.model)), vocabulary(model.tokenizer).size
    if rows < size:
        raise InputError(
            f"{other.name} has {rows} rows for the {size} tokens of {model.name}, which is to be tuned beside it; take "
            "a model with a row for each."
        )


def adapter_config(lora: Lora) -> Any:
    """PEFT's description of an adapter."""
    from peft import LoraConfig

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return LoraConfig(task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)


def trainable(spec: str, name: str, lora: Lora | None, seed: int, recipe: Recipe) -> Any:
    """What is trained of a model: all its weights, in float32, or a fresh adapter (a PeftModel), drawn by ``seed``.

    Raises:
        InputError: if the adapter cannot be put on the model, or would change its output layer.
    """
    dtype = DTYPES[recipe.precision] if lora else torch.float32
    network: Any = load(spec, dtype, torch.device("cpu")).model
    if recipe.gradient_checkpointing:
        network.activation_checkpointing_enable()
    if lora is None:
        return network
    from peft import get_peft_model

    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
            network = get_peft_model(network, adapter_config(lora))
    except (ValueError, re.error) as error:  # a text is a regular expression
        raise InputError(f"LoRA cannot be put on {name}: {error}; correct 'targets'.") from error
    if any(p.requires_grad for p in causal(network).get_output_embeddings().parameters()):
        raise InputError("LoRA on the output layer is not known to the loss; take it out of 'targets'.")
    embeddings: Any = causal(network).get_input_embeddings()
    if embeddings.weight is head(network) and any(p.requires_grad for p in embeddings.parameters()):
        raise InputError(
            f"LoRA on the input embeddings of {name} would change its output layer, which is the same matrix, when it "
            "is merged; take them out of 'targets'."
        )
    return network
