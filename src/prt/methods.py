"""The methods: what each makes of a target, as a sum of log-probabilities and rewards of a few networks.

Everything else asks here: which networks a method needs, what it is called, and its colour. A new method is an entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

from prt.errors import known

T = TypeVar("T")


class Network(NamedTuple):
    """A network of the sum: whose, and what it was tuned to be.

    ``model``: ``pretrained``, ``instruct`` (published as tuned for instructions), ``ft`` (fine-tuned), ``prt`` (a
    reward), ``adapted`` (that reward, tuned further on other data).
    """

    owner: Literal["target", "source"]
    model: Literal["pretrained", "instruct", "ft", "prt", "adapted"]


PRETRAINED, INSTRUCT, FT = (Network("target", model) for model in ("pretrained", "instruct", "ft"))
SOURCE_PRETRAINED, SOURCE_FT = Network("source", "pretrained"), Network("source", "ft")
REWARD, ADAPTED = Network("source", "prt"), Network("source", "adapted")
REWARDS = ("prt", "adapted")  # models whose outputs are rewards; those of the others are log-probabilities


@dataclass(frozen=True)
class Method:
    """softmax(base + strength · Σ sign · network); without ``added`` it is ``base`` alone, and has no strength.

    ``merged``: the sum is one of weights, base + scale · Σ sign · network: one network of one architecture, whose scale
    stands where others have their strength. ``at``: the method whose strength is chosen on validation data; with
    ``any_variant`` so is the way in which its reward was tuned.
    ``of_texts``: what is added is the log-ratio of texts, not of tokens, on a target of another tokenizer
    (:mod:`prt.language.prefix`); ``beside`` are networks that this needs, too.
    """

    label: str
    colour: str  # of Okabe and Ito's palette, or Tol's, which colour-blind readers can tell apart
    base: Network
    added: tuple[tuple[int, Network], ...] = ()
    merged: bool = False
    at: str | None = None
    any_variant: bool = False
    of_texts: bool = False
    beside: tuple[Network, ...] = ()

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks of the sum, and what else it needs."""
        return (self.base, *(network for _, network in self.added), *self.beside)

    @property
    def transfers(self) -> bool:
        """Whether something of a source is put on a target."""
        return bool(self.added)

    @property
    def tuned(self) -> str | None:
        """What a folder must hold for this method to put it on any pretrained target: ``ft``, ``prt`` or ``adapted``.

        None where a folder is not enough: nothing is added, more than one tuned network is, or the target is tuned;
        where weights are added, or validation data is needed; of texts, which a method becomes where tokenizers differ.
        """
        if self.merged or self.at:
            return None
        models = {network.model for _, network in self.added if network != SOURCE_PRETRAINED}
        tuned = self.base != PRETRAINED or any(network.owner != "source" for _, network in self.added)
        if self.of_texts or tuned or len(models) != 1:
            return None
        return next((model for model in models if model in ("ft", *REWARDS)), None)

    @property
    def subtracts(self) -> bool:
        """Whether the model that the source was tuned from takes part, as in EFT."""
        return SOURCE_PRETRAINED in self.networks

    @property
    def seeded(self) -> bool:
        """Whether a network of the sum was tuned, and so has a seed."""
        return any(network.model not in ("pretrained", "instruct") for network in self.networks)

    @property
    def has_alpha(self) -> bool:
        """Whether a network of the sum is a reward, and so has a weight α of the entropy term."""
        return any(network.model in REWARDS for network in self.networks)


# A transferring method is compared with the methods after it and with every model alone but the bare reward.
METHODS: dict[str, Method] = {
    "pretrained": Method("Pretrained", "#B3B3B3", PRETRAINED),
    "prt": Method("PRT", "#0072B2", PRETRAINED, ((1, REWARD),)),  # eq. 6 and 10
    "adapted": Method("PRT, tuned further", "#D55E00", PRETRAINED, ((1, ADAPTED),)),  # Table 5
    "eft": Method("EFT", "#E69F00", PRETRAINED, ((1, SOURCE_FT), (-1, SOURCE_PRETRAINED))),  # eq. 4
    "prt-text": Method(
        "PRT as text", "#88CCEE", PRETRAINED, ((1, REWARD),), of_texts=True, beside=(SOURCE_PRETRAINED,)
    ),
    "eft-text": Method("EFT as text", "#CC6677", PRETRAINED, ((1, SOURCE_FT), (-1, SOURCE_PRETRAINED)), of_texts=True),
    # A product of experts: PRT's cost, no reward trained. Not in the paper.
    "poe": Method("PoE", "#CC79A7", PRETRAINED, ((1, SOURCE_FT),)),
    # Task arithmetic (Ilharco et al. 2023): EFT's sum in the weights. One forward pass; not in the paper.
    "difference": Method(
        "weight difference", "#999933", PRETRAINED, ((1, SOURCE_FT), (-1, SOURCE_PRETRAINED)), merged=True
    ),
    # The same product with the target's own fine-tuned model: what two networks could do. Not in the paper.
    "ensemble": Method("both FT", "#882255", FT, ((1, SOURCE_FT),)),
    "ft": Method("FT (target's own)", "#009E73", FT),
    "source_ft": Method("source's FT, kept as it is", "#000000", SOURCE_FT),
    "instruct": Method("Instruct (published)", "#F0E442", INSTRUCT),
    "reward": Method("reward alone", "#56B4E9", REWARD),  # eq. 12's ρ
}
_CHOSEN = {"prt": "#332288", "eft": "#DDCC77", "poe": "#AA4499", "difference": "#117733"}
# Before those whose strength alone is chosen, which it is compared with.
METHODS["prt_best"] = replace(
    METHODS["prt"], label="PRT, tuning and strength chosen", colour="#661100", at="prt", any_variant=True
)
METHODS |= {
    f"{name}_chosen": replace(METHODS[name], label=f"{METHODS[name].label}, strength chosen", colour=colour, at=name)
    for name, colour in _CHOSEN.items()
}

AS_TEXT = {"prt": "prt-text", "eft": "eft-text"}  # on a target of another tokenizer


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: if there is none.
    """
    known(name, METHODS, "method")
    return METHODS[name]


def tuned_among(name: str, parts: Sequence[T]) -> list[T]:
    """Of the networks that a method adds, once or several times over, those that were tuned; in order."""
    added = method(name).added
    return [part for n, part in enumerate(parts) if added[n % len(added)][1] != SOURCE_PRETRAINED]


def putting_on(model: str) -> list[str]:
    """The methods that put a folder of what was tuned to be ``model`` (see :class:`Network`) on a pretrained target.

    A reward that was tuned further is still a reward, and prt puts it on as any.
    """
    fitting = {model, "prt"} if model in REWARDS else {model}
    return [name for name, of in METHODS.items() if of.tuned in fitting]
