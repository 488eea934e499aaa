"""Targets of another tokenizer than their source's: what a configuration may ask of them."""

from prt.config import Language
from prt.errors import InputError
from prt.language.tasks import check_across


def check_tokenizers(language: Language) -> None:
    """Refuse what cannot be measured, or not shown, of a target of another tokenizer.

    Raises:
        InputError: naming the item and the pair, the engine, or the way of drawing answers.
    """
    single = [(str(name), item.source, item.target) for name, item in language.next_tokens.items()]
    single += [("table3", source, target) for source, target in (language.table3.pairs if language.table3 else [])]
    for name, item in language.transfers.items():
        pairs = [(panel.source, target) for panel in item.panels for target in panel.models]
        if name in ("figure7", "ageing_language"):
            single += [(name, source, target) for source, target in pairs]
        if any(language.across(*pair) for pair in pairs):
            for benchmark in item.benchmarks:
                check_across(benchmark, language.benchmarks[benchmark])
    pairs = [(panel.source, t) for item in language.transfers.values() for panel in item.panels for t in panel.models]
    if language.engine != "transformers" and any(language.across(*pair) for pair in pairs):
        raise InputError(
            f"{language.engine} runs no target of another tokenizer; leave out `engine`, or measure them in a "
            "configuration of their own."
        )
    for name, source, target in single:
        if language.across(source, target):
            raise InputError(
                f"{name} shows a reward on models with its own tokenizer, but {source} and {target} are said to have "
                "different ones; take another target, or correct `tokenizer`."
            )
