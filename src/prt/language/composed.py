"""A target with rewards on it, as one ordinary causal language model of transformers.

Decoding adds raw logits. Equations 6 and 10 add a reward to log π̃ = f̃ − logsumexp(f̃), and equation 4 adds the
difference of two such log-probabilities; each logsumexp is one number per position, the same for every token, and the
softmax that follows takes it out again. So none of them is computed.
"""

import copy
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from prt.combine import check_strength
from prt.errors import InputError
from prt.language.composed_folder import FINDING, ComposedConfig, described, read_folder, refuse_options, write_folder
from prt.language.fit import fitted, refuse_unread, rows_of, shortest_context
from prt.language.models import Causal

HANDED_ON = ("tokenizer", "assistant_tokenizer")  # by generate() to the model, with stop strings and an assistant


class ComposedCache(Cache):
    """One cache per model. Its layers are all of theirs, so cropping, reordering and resetting reach every model.

    Args:
        caches: one per model, the target's first.
        steps: what makes one decoding step of each model, compiled; None stands for the model itself.
    """

    # generate() would compile one step, and make one mask, for all models from one configuration.
    is_compileable = False

    def __init__(self, caches: Sequence[Cache], steps: Sequence[Callable[..., Any] | None]) -> None:
        super().__init__(layers=[layer for cache in caches for layer in cache.layers])
        self.caches = list(caches)
        self.steps = list(steps)


def _refused(what: str) -> Any:
    """A method that a composed model does not have; ``what`` says so, and what to do."""

    def method(*_: Any, **__: Any) -> None:
        raise InputError(f"a composed model {what}.")

    return method


def _unknown(what: str) -> InputError:
    return InputError(
        f"a composed model does not take {what}: what belongs to one model, such as its embeddings and hidden states, "
        "is to be had of that one, in `models`."
    )


class Composed(PreTrainedModel, GenerationMixin):
    """Logits of a target plus weighted logits of other models: target + Σ_i weight_i · part_i, in float32.

    It is as wide as the target's tokenizer (whatever rows the layers are padded to), and −inf at the ids that do not
    mean the same token to all. Every model stays on its own device; the sum is on the target's. It is for inference:
    what of transformers would train, change or save it raises InputError.

    Args:
        target: the model that is changed.
        parts: the models that are added, with their weights.
        method: by which they are, see :mod:`prt.methods`.

    Raises:
        InputError: for tokenizers that differ, and for a model with too few rows for the target's tokenizer.
    """

    # Attention is the models' own affair, whichever kind the target's configuration names.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    config_class = ComposedConfig
    push_to_hub = _refused("is pushed as a folder: save it, then `prt push FOLDER OWNER/NAME`")
    resize_token_embeddings = resize_position_embeddings = get_input_embeddings = set_input_embeddings = _refused(
        "has no embeddings of its own: ask its models, which are in `models`, or change them before they are composed"
    )
    set_output_embeddings = get_input_embeddings
    add_adapter = load_adapter = _refused("takes no adapter: merge it into one of the models, then compose them")
    gradient_checkpointing_enable = activation_checkpointing_enable = _refused("is not trained: tune a reward")
    # Its paged cache has one size of key and one number of heads for all layers, and is written by layers of one model.
    generate_batch = init_continuous_batching = continuous_batching_context_manager = _refused(
        "has no continuous batching: give generate() a batch of prompts, padded on the left, and no paged cache"
    )

    config: ComposedConfig
    models: Any
    barred: Tensor

    def __init__(self, target: Causal, parts: Sequence[tuple[Causal, float]], method: str) -> None:
        parts_alone = [part for part, _ in parts]
        models: list[PreTrainedModel] = [target.model, *(part.model for part in parts_alone)]
        fit = fitted(target, parts_alone)
        config = ComposedConfig(
            method=method,
            models=described(target, parts),
            vocab_size=fit.size,
            max_position_embeddings=shortest_context(models),
        )
        config._attn_implementation = models[0].config._attn_implementation
        super().__init__(config)
        self.models = nn.ModuleList(models)
        self.causals = [target, *parts_alone]
        self.weights = [float(weight) for _, weight in parts]
        barred = torch.tensor(fit.barred, dtype=torch.long, device=target.model.device)
        self.register_buffer("barred", barred, persistent=False)
        self.unread = fit.unread
        self.generation_config = generation_of(models, set(fit.barred))
        self.loss_type = "ForCausalLM"
        self._is_stateful = any(model._is_stateful for model in models)
        self.all_tied_weights_keys: dict[str, str] = {}
        self.eval()

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | PathLike[str], **others: Any
    ) -> None:
        """Write the composed model as a folder that ``AutoModelForCausalLM.from_pretrained`` gives back.

        Its models are copied, in their own precisions; see :mod:`prt.language.composed_folder`.

        Raises:
            InputError: if the folder is there already or cannot be written, or for other arguments of transformers.
        """
        refuse_options(others, "saved")
        write_folder(Path(save_directory), self.causals, self.config, self.generation_config)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: PreTrainedConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        **others: Any,
    ) -> "Composed":
        """Load what :meth:`save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the Hugging Face hub.
            config: none but the folder's own, which transformers has read to find this class.
            dtype: of all models; default: as they were written.
            device_map: one device, or a way of transformers' to spread every model over all, such as auto.
            attn_implementation: of all models, as in transformers.
            others: where on the hub it is found (revision, token, …).

        Raises:
            InputError: if it is no such folder, a model in it has gone, was changed or cannot be loaded, or for other
                arguments of transformers.
        """
        spec = str(pretrained_model_name_or_path)
        finding = {name: others.pop(name) for name in FINDING if name in others}
        dtype = dtype or others.pop("torch_dtype", None)  # its former name
        refuse_options(others, "loaded")
        (target, *parts), saved, generation = read_folder(spec, dtype or "auto", device_map, finding)
        weights = [part["weight"] for part in saved.models[1:]]
        model = cls(target, list(zip(parts, weights, strict=True)), saved.method)
        model.generation_config = generation
        model.name_or_path = model.config._name_or_path = spec
        attention = attn_implementation or getattr(config, "_attn_implementation", None)
        if attention is not None:
            model.set_attn_implementation(attention)
        return model

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Nothing: every model has tied its own. lm-eval asks for it."""

    def train(self, mode: bool = True) -> "Composed":
        """Nothing for False, as for any module.

        Raises:
            InputError: for True.
        """
        if mode:
            raise InputError("a composed model is not trained: tune a reward, and compose it with the target.")
        return super().train(mode)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ComposedCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Summed logits, (batch, positions kept, tokens of the tokenizer), float32, on the target's device.

        Args:
            input_ids: (batch, positions), after those in ``past_key_values``.
            attention_mask: (batch, positions in the cache and here), 0 at padding.
            position_ids: (batch, positions).
            past_key_values: what an earlier call returned.
            labels: (batch, positions), token ids, or −100 where nothing is learned; then the result has the ``loss``,
                the mean cross-entropy of each with the logits of the position before, as transformers has it.
            use_cache: keep a cache; without this and ``past_key_values``, none is made.
            logits_to_keep: that many of the last positions, or these positions; 0 keeps all.
            others: None, or what generate() hands on to every model and a composed one does not need.

        Raises:
            InputError: for other arguments of transformers, such as output_hidden_states, and for a text with a token
                that one of the models has no row for.
            TypeError: if the cache is another model's.
        """
        for name, value in others.items():
            if not (value is None or name in HANDED_ON or (value is False and name.startswith("output_"))):
                raise _unknown(name)
        if input_ids is None:
            raise _unknown("a text without input_ids")
        cache = past_key_values
        if cache is None and use_cache:
            cache = ComposedCache([DynamicCache(config=m.config) for m in self.models], [None] * len(self.models))
        if cache is not None and not isinstance(cache, ComposedCache):
            raise TypeError(f"a composed model needs a cache with one part per model, not a {type(cache).__name__}.")
        if past_key_values is None:  # generate() has looked at the prompt; later its assistant may draft what it likes
            refuse_unread(self.unread, input_ids, attention_mask, padded=not use_cache)
        none = [None] * len(self.models)
        caches = none if cache is None else cache.caches
        steps = none if cache is None or input_ids.shape[1] > 1 else cache.steps  # no new graph for each prompt
        inputs = (input_ids, attention_mask, position_ids, logits_to_keep, self.config.vocab_size)
        # Nothing waits between the models, so those on several devices work at the same time. The first logits are the
        # one buffer of this width, and the others are added in place. It is a copy from half precision, and of what a
        # compiled step gave: a captured graph's output is gone when the next model's graph runs.
        first = read(self.models[0], caches[0], steps[0], *inputs)
        total = first.to(torch.float32, copy=steps[0] is not None)
        for model, own, step, weight in zip(self.models[1:], caches[1:], steps[1:], self.weights, strict=True):
            total.add_(read(model, own, step, *inputs).to(total.device), alpha=weight)
        total.index_fill_(-1, self.barred, -torch.inf)
        loss = None if labels is None else self.loss_function(total, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=total, past_key_values=cache)

    def _validate_generation_mode(
        self, mode: GenerationMode, generation_config: GenerationConfig, options: dict[str, Any]
    ) -> None:
        """As for any model; what drafts with the model's own first layers is refused, as there is no one model.

        Raises:
            InputError: for assistant_early_exit.
        """
        if generation_config.assistant_early_exit is not None:
            raise InputError(
                "a composed model has no layers of its own for assistant_early_exit: give assistant_model."
            )
        mixin: Any = super()
        mixin._validate_generation_mode(mode, generation_config, options)

    def _expand_inputs_for_generation(self, *arguments: Any, **inputs: Any) -> Any:
        """As for any model, after a look at the whole prompt and at what generate() would drop.

        Raises:
            InputError: for labels, and for a prompt with a token that one of the models has no row for.
        """
        if inputs.get("labels") is not None:
            raise InputError("generate() makes no use of labels: give them to the model itself, which has the loss.")
        refuse_unread(self.unread, inputs["input_ids"], inputs.get("attention_mask"))
        mixin: Any = super()
        return mixin._expand_inputs_for_generation(*arguments, **inputs)

    def _valid_auto_compile_criteria(self, *_: Any) -> bool:
        """Never as a whole: every model compiles a step of its own, see :func:`make_cache`."""
        return False

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> Any:
        """Every model makes the kind of cache that is asked for, by its own configuration, and its compiled step."""
        if model_kwargs.get("past_key_values") is not None or generation_config.use_cache is False:
            mixin: Any = super()
            return mixin._prepare_cache_for_generation(
                generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
            )
        caches: list[Cache] = []
        steps: list[Callable[..., Any] | None] = []
        for model in self.models:
            cache, step = make_cache(model, generation_config, generation_mode, batch_size, max_cache_length)
            caches.append(cache)
            steps.append(step)
        model_kwargs["past_key_values"] = ComposedCache(caches, steps)
        return None


def generation_of(models: Sequence[Any], barred: set[int]) -> GenerationConfig:
    """The target's settings. If none of the tokens that end its texts can come, those of the other models end them."""
    configs = [copy.deepcopy(model.generation_config) for model in models]
    # An id, a list of them, or None.
    ends = [{*([c.eos_token_id] if isinstance(c.eos_token_id, int) else c.eos_token_id or [])} for c in configs]
    possible = sorted(set().union(*ends) - barred)
    if ends[0] and ends[0] <= barred and possible:
        configs[0].eos_token_id = possible
    own: GenerationConfig = configs[0]
    return own


def make_cache(
    model: Any, generation_config: GenerationConfig, mode: GenerationMode, batch: int, length: int
) -> tuple[Cache, Callable[..., Any] | None]:
    """The cache that generate() would make for one model, and its compiled step where it would compile one."""
    made: dict[str, Any] = {}
    model._prepare_cache_for_generation(generation_config, made, mode, batch, length)
    compiled = model._valid_auto_compile_criteria(made, generation_config)
    return made["past_key_values"], model.get_compiled_call(generation_config.compile_config) if compiled else None


def read(
    model: Any,
    cache: Cache | None,
    step: Callable[..., Any] | None,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    logits_to_keep: int | Tensor,
    size: int,
) -> Tensor:
    """One model's logits, on its own device and for ``size`` tokens; the arguments are those of ``Composed.forward``.

    A compiled ``step`` is taken once something is in the cache. Where the model has fewer rows, padding is read as any
    token, and the logits are 0: these ids are barred.
    """
    tensors: dict[str, Any] = {
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "logits_to_keep": logits_to_keep,
    }
    inputs = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in tensors.items()}
    inputs |= {"past_key_values": cache, "use_cache": cache is not None}
    input_ids = input_ids.to(model.device)
    if (rows := rows_of(model)) < size:
        input_ids = input_ids.masked_fill(input_ids >= rows, 0)
    if step is None or cache is None or not cache.is_initialized:
        logits = model(input_ids=input_ids, **inputs).logits
    else:  # it needs its mask ready made, of the same shape at every step
        logits = step(**model.prepare_inputs_for_generation(input_ids, **inputs)).logits
    missing = size - logits.shape[-1]
    return pad(logits, (0, missing)) if missing > 0 else logits[..., :size]


def compose(target: Causal, parts: Sequence[tuple[Causal, float]], method: str) -> Causal:
    """A target with other models on it, each with its weight; ``method`` is what the name says of it.

    Equations 6 and 10: rewards, each with its strength 1/λ. Equation 4: the fine-tuned source with the strength, and
    the pretrained source with the negative strength.

    Raises:
        InputError: for tokenizers that differ, a model with too few rows for the target's tokenizer, and a weight that
            is not finite.
    """
    for _, weight in parts:
        check_strength(weight)
    added = ", ".join(f"{weight:+g} {part.name}" for part, weight in parts)
    return Causal(f"{target.name} ({method}: {added})", Composed(target, parts, method), target.tokenizer)


# Whoever has imported this module has transformers load such a folder.
AutoConfig.register(ComposedConfig.model_type, ComposedConfig)
AutoModelForCausalLM.register(ComposedConfig, Composed)
