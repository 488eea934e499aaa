"""The configuration: what an experiment may say, with every default."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from prt.class_names import Classes, Templates
from prt.recipe import Positive

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Shots = Annotated[
    str, BeforeValidator(lambda s: str(s) if isinstance(s, int) else s), Field(pattern=r"^(full|[1-9]\d*)$")
]
Share = Annotated[float, Field(gt=0, lt=1)]
Given = dict[str, Any]  # the keys of a recipe that are given; what is left out is inherited
Folder = Annotated[str, Field(min_length=1)]


def _unique(values: list[Any]) -> list[Any]:
    """Refuse what is there twice; numbers as they are printed, which is what files and rows are told apart by."""
    printed = [f"{value:g}" if isinstance(value, float) else repr(value) for value in values]
    if twice := [text for text in printed if printed.count(text) > 1]:
        raise ValueError(f"has the entry {twice[0]} twice")
    return values


def _swept(alphas: list[float]) -> list[float]:
    if not any(alphas):
        raise ValueError("sweeps nothing: add an α above 0")
    return alphas


def _put_on(strengths: list[float]) -> list[float]:
    if not any(strengths):
        raise ValueError("puts nothing on: add a strength above 0")
    return strengths


def _varied(strengths: list[float]) -> list[float]:
    if not set(strengths) - {1.0}:
        raise ValueError("sweeps nothing, as 1 is always computed: add another strength")
    return strengths


Distinct = AfterValidator(_unique)
Names = Annotated[list[str], Field(min_length=1), Distinct]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy's are of 32 bits
Seeds = Annotated[list[Seed], Field(min_length=1), Distinct]
Number = Annotated[float, Field(ge=0, lt=3e38), AfterValidator(abs)]  # of single precision; without the sign of -0
Numbers = Annotated[list[Number], Field(min_length=1), Distinct]
Alphas = Annotated[Numbers, AfterValidator(_swept)]
Strengths = Annotated[Numbers, AfterValidator(_varied)]
OfBoth = Annotated[Numbers, AfterValidator(_put_on)]  # strengths of two rewards
Pairs = Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1), Distinct]


# The iteration after which a pretraining ends; not written where it is the last.
Stopped = Annotated[Positive | None, Field(exclude_if=lambda stop: stop is None)]


class Part(BaseModel):
    """A part of the configuration: unknown keys and values of another type are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Panel(Part):
    """A source, and the targets that what was tuned on it is put on."""

    source: str
    targets: Names

    @property
    def models(self) -> list[str]:
        """The source itself, then its targets."""
        return list(dict.fromkeys([self.source, *self.targets]))


Panels = Annotated[list[Panel], Field(min_length=1)]


class Backbone(Part):
    """A CLIP: one of open_clip (``spec``), or a miniature that is pretrained here."""

    needs: ClassVar[str] = "either 'spec' alone, or 'architecture', 'corpus' and 'recipe'"

    spec: str | None = None
    paper: str | None = None
    architecture: Literal["vit-s", "vit-b", "rn12", "rn24"] | None = None
    corpus: Literal["poor", "rich"] | None = None
    recipe: Given | None = None
    stop: Stopped = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        own = [self.architecture is None, self.corpus is None, self.recipe is None]
        if not (all([*own, self.stop is None]) if self.spec is not None else not any(own)):
            raise ValueError(f"needs {self.needs}")
        return self


TOKENIZERS = ("pieces", "threes")  # of miniatures, beside the one that most of them share


class Model(Part):
    """A language model: one of the hub or a folder (``spec``), or a miniature that is pretrained here.

    ``tokenizer``: a name for its tokenizer; models with the same name, or without one, have the same.
    """

    needs: ClassVar[str] = "either 'spec' and 'parameters' (in billions), or 'size', 'corpus' and 'recipe'"

    spec: str | None = None
    architecture: str | None = None
    instruct: str | None = None
    parameters: Annotated[float, Field(gt=0)] | None = None
    tokenizer: Name | None = None
    paper: str | None = None
    size: Literal["s", "m", "l"] | None = None
    corpus: Literal["poor", "rich"] | None = None
    recipe: Given | None = None
    stop: Stopped = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        own = [self.size is None, self.corpus is None, self.recipe is None]
        others = [self.spec is None, self.parameters is None]
        if not (
            all([*own, self.stop is None]) and not any(others)
            if self.spec is not None
            else not any(own) and all(others) and not self.instruct and not self.architecture
        ):
            raise ValueError(f"needs {self.needs}")
        if self.spec is None and self.tokenizer not in (None, *TOKENIZERS):
            raise ValueError(f"is a miniature, whose tokenizer is {' or '.join(TOKENIZERS)}, or not given")
        return self


class Dataset(Part):
    """An image data set, and the recipe of each number of shots."""

    source: str
    shots: Annotated[dict[Shots, Given], Field(min_length=1)]
    classes: Classes | None = None
    templates: Templates | None = None
    validation: Share = 0.1
    test: Share = 0.2


class Experiment(Panel):
    """A panel on one data set with one number of shots: Tables 5 and 7, Figure 6."""

    dataset: str
    shots: Shots


class Figure6(Experiment):
    """The entropy sweep; ``every``: iterations between two points of the curve."""

    alphas: Alphas
    every: Positive


class Table5(Experiment):
    """The noise experiment; ``noise``: standard deviation on pixels between 0 and 1."""

    noise: Annotated[float, Field(gt=0)]
    recipe: Given


class Together(Panel):
    """Two rewards of one source on its targets at once, each tuned on one of two data sets with the same labels."""

    datasets: Annotated[list[str], Field(min_length=2, max_length=2), Distinct]
    shots: Shots
    strengths: OfBoth


class Ledger(Part):
    """Published zero-shot accuracies, and what to do where ours differ."""

    published: str
    tolerance: Annotated[float, Field(ge=0)] = 0.02
    beyond: Literal["stop", "warn"] = "stop"


class Costs(Part):
    """Tables 1 and 2."""

    training: Names
    inference: Pairs
    batch: Positive
    repeats: Positive
    compile: bool = True


class Variant(Part):
    """Another way to tune a reward: the weight α of its entropy term, and what differs in its recipe."""

    alpha: Number = 0.0
    recipe: Given = {}


class Vision(Part):
    """The vision half."""

    backbones: Annotated[dict[Name, Backbone], Field(min_length=1)]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    recipe: Given
    seeds: Seeds
    panels: Panels
    figure6: Figure6
    table7: Experiment
    strengths: Strengths
    variants: dict[Name, Variant] = {}
    downloads: Folder = "downloads"
    figure12: Names | None = None
    ledger: Ledger | None = None
    costs: Costs | None = None
    table5: Table5 | None = None
    together: Together | None = None
    ageing: Panel | None = None

    @property
    def items(self) -> dict[str, Experiment]:
        """The items that are on one data set."""
        found = {"figure6": self.figure6, "table5": self.table5, "table7": self.table7}
        return {name: item for name, item in found.items() if item is not None}


class Chats(Part):
    """The chats that language models are tuned on."""

    source: str
    template: Literal["tulu", "own"] = "tulu"
    validation: Share = 0.02


class Adapter(Part):
    """The adapters of Table 6."""

    rank: Positive
    alpha: Positive | None = None
    targets: Names | None = None
    recipe: Given = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What is given of the adapter itself."""
        return self.model_dump(exclude={"recipe"}, exclude_none=True)


class Bars(Part):
    """Benchmarks, and transfers that are compared on them."""

    benchmarks: Names
    panels: Panels
    seeds: Seeds | None = None


class Figure7(Bars):
    """The entropy sweep of language models."""

    alphas: Alphas


class TwoRewards(Panel):
    """Two rewards of one source on its targets at once, each tuned on chats of its own (name → source)."""

    chats: Annotated[dict[Name, str], Field(min_length=2, max_length=2)]
    benchmarks: Annotated[list[str], Field(min_length=2, max_length=2), Distinct]
    strengths: OfBoth


class NextTokens(Part):
    """The next tokens in the answer to a question of a benchmark."""

    source: str
    target: str
    benchmark: str
    example: Annotated[int, Field(ge=0)]


class Table3(Part):
    """Decoding speed."""

    pairs: Pairs
    prompt_tokens: Positive
    new_tokens: Annotated[int, Field(ge=16)]
    repeats: Annotated[int, Field(ge=2)]
    compile: bool = True


Figure = Literal["figure3", "figure4", "figure10", "figure11", "figure13", "figure14", "tokenizers", "ageing_language"]


class Language(Part):
    """The language half."""

    models: Annotated[dict[ModelName, Model], Field(min_length=1)]
    data: Chats
    recipe: Given
    seeds: Seeds
    methods: Annotated[list[str], Distinct]
    strengths: Strengths | None = None
    benchmarks: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    lora: Adapter | None = None
    variants: dict[Name, Variant] = {}
    downloads: Folder = "downloads"
    unsafe_code: bool = False
    engine: Literal["transformers", "vllm"] = "transformers"
    bars: dict[Figure, Bars] = {}
    next_tokens: dict[Literal["figure5", "figure8", "figure9"], NextTokens] = {}
    figure7: Figure7 | None = None
    table3: Table3 | None = None
    table4: Bars | None = None
    table6: Bars | None = None
    together: TwoRewards | None = None

    def across(self, source: str, target: str) -> bool:
        """Whether two models have different tokenizers."""
        return self.models[source].tokenizer != self.models[target].tokenizer

    @property
    def transfers(self) -> dict[str, Bars]:
        """The items that compare transfers on benchmarks."""
        others = {"figure7": self.figure7, "table4": self.table4, "table6": self.table6}
        found: dict[str, Bars] = {str(name): item for name, item in self.bars.items()}
        return found | {name: item for name, item in others.items() if item is not None}


def _rate(given: Any) -> Any:
    if not (isinstance(given, list | tuple) and len(given) == 2 and 0 < given[0] <= given[1]):
        raise ValueError("must be [lowest, highest], both above 0")
    return tuple(map(float, given))


Rate = Annotated[tuple[float, float], BeforeValidator(_rate)]


class Throughput(Part):
    """What a machine reaches, from worst to best; a budget is reckoned from it. The defaults are guesses for an A100.

    ``tuning``, ``reading`` (prompts and continuations) and ``images``: TFLOP/s of a GPU. ``decoding``: GB/s at which
    weights are read. ``step``: steps of decoding a second of a network, where its size sets no lower bound.
    ``pictures``: decoded a second by a core. ``cpu``: TFLOP/s of a core. ``starting``: jobs a minute that one place
    starts. ``download``: MB/s.
    """

    tuning: Rate = (60.0, 160.0)
    reading: Rate = (30.0, 150.0)
    images: Rate = (30.0, 120.0)
    decoding: Rate = (500.0, 1500.0)
    step: Rate = (20.0, 60.0)
    pictures: Rate = (50.0, 300.0)
    cpu: Rate = (0.02, 0.1)
    starting: Rate = (0.7, 6.0)
    download: Rate = (20.0, 200.0)


class Config(Part):
    """An experiment.

    ``jobs``: ``few`` takes all that shares its inputs into one job, ``many`` takes each run alone.
    ``device``: ``cpu`` runs every job on one core, without a GPU and in fp32; ``auto`` runs those of large networks on
    GPUs. ``pretraining_seed``: of the initial weights and of the batches of the miniatures that are pretrained here.
    ``throughput``: what a budget is reckoned from. ``stand_ins``: small random networks and data are made where
    downloads would lie (``prt.rehearsal``).
    """

    experiment: Name
    jobs: Literal["few", "many"] = "many"
    device: Literal["auto", "cpu"] = "auto"
    pretraining_seed: Seed = 0
    throughput: Throughput = Throughput()
    stand_ins: bool = False
    vision: Vision | None = None
    language: Language | None = None
