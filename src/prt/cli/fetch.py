"""The rules that need a network; all others run without.

Where the configuration asks for stand-ins, one is made in place first, without a network, and then found there.
"""

from collections.abc import Callable
from pathlib import Path

from prt.cli.options import ConfigFile, JobName, begin, plan_of
from prt.hub import allow_network


def _wanted(rule: str, job: str, config: Path) -> tuple[str, Path, bool]:
    """What is fetched, the first file that says that it is there, and whether a stand-in is made.

    If none is, the network may be used from here on.
    """
    plan = plan_of(config)
    allow_network(not plan.config.stand_ins)
    of = plan.jobs.get(rule, job)
    return of.about, Path(of.makes[0]), plan.config.stand_ins


def fetch_backbone(job: JobName, config: ConfigFile) -> None:
    """Download the weights of an open_clip tag, and write them as a folder that local-dir: loads."""
    spec, made, stand_in = _wanted("fetch_backbone", job, config)
    fetch: Callable[[str, Path], None]
    if stand_in:
        from prt.rehearsal.clips import make as fetch
    else:
        from prt.vision.backbones import fetch_backbone as fetch

    begin()
    fetch(spec, made.parent)


def fetch_dataset(job: JobName, config: ConfigFile) -> None:
    """Download the files of an image data set."""
    source, receipt, stand_in = _wanted("fetch_dataset", job, config)
    from prt.vision.fetch import fetch

    if stand_in:
        from prt.rehearsal.pictures import make

        make(source, receipt.parent)
    begin()
    fetch(source, receipt.parent, receipt)


def fetch_model(job: JobName, config: ConfigFile) -> None:
    """Download weights and tokenizer of a model of the Hugging Face hub."""
    spec, made, stand_in = _wanted("fetch_model", job, config)
    from prt.language.models import fetch

    if stand_in:
        from prt.rehearsal.models import make

        make(spec, made.parent)
    begin()
    fetch(spec, made.parent)


def fetch_chats(job: JobName, config: ConfigFile) -> None:
    """Download the chats that models are tuned on."""
    source, receipt, stand_in = _wanted("fetch_chats", job, config)
    from prt.language.chats import fetch

    if stand_in:
        from prt.rehearsal.texts import make_chats

        make_chats(source, receipt.parent)
    begin()
    fetch(source, receipt.parent, receipt)


def fetch_benchmark(job: JobName, config: ConfigFile) -> None:
    """Download the data of a benchmark."""
    task, receipt, stand_in = _wanted("fetch_benchmark", job, config)
    from prt.language.tasks import fetch

    downloads = receipt.parents[1]
    if stand_in:
        from prt.rehearsal.texts import make_benchmark

        make_benchmark(task, downloads)
    begin()
    fetch(task, {}, downloads, receipt)


RULES = (fetch_backbone, fetch_dataset, fetch_model, fetch_chats, fetch_benchmark)
