"""The rules that need a network; all others run without."""

from pathlib import Path

from prt.cli.options import ConfigFile, JobName, begin, plan_of
from prt.hub import allow_network


def _wanted(rule: str, job: str, config: Path) -> tuple[str, Path]:
    """What is fetched, and the first file that says that it is there; the network may be used from here on."""
    allow_network(True)
    of = plan_of(config).jobs.get(rule, job)
    return of.about, Path(of.makes[0])


def fetch_backbone(job: JobName, config: ConfigFile) -> None:
    """Download the weights of an open_clip tag, and write them as a folder that local-dir: loads."""
    spec, made = _wanted("fetch_backbone", job, config)
    from prt.vision.backbones import fetch_backbone

    begin()
    fetch_backbone(spec, made.parent)


def fetch_dataset(job: JobName, config: ConfigFile) -> None:
    """Download the files of an image data set."""
    source, receipt = _wanted("fetch_dataset", job, config)
    from prt.vision.fetch import fetch

    begin()
    fetch(source, receipt.parent, receipt)


def fetch_model(job: JobName, config: ConfigFile) -> None:
    """Download weights and tokenizer of a model of the Hugging Face hub."""
    spec, made = _wanted("fetch_model", job, config)
    from prt.language.models import fetch

    begin()
    fetch(spec, made.parent)


def fetch_chats(job: JobName, config: ConfigFile) -> None:
    """Download the chats that models are tuned on."""
    source, receipt = _wanted("fetch_chats", job, config)
    from prt.language.chats import fetch

    begin()
    fetch(source, receipt.parent, receipt)


def fetch_benchmark(job: JobName, config: ConfigFile) -> None:
    """Download the data of a benchmark."""
    task, receipt = _wanted("fetch_benchmark", job, config)
    from prt.language.tasks import fetch

    begin()
    fetch(task, {}, receipt.parents[1], receipt)


RULES = (fetch_backbone, fetch_dataset, fetch_model, fetch_chats, fetch_benchmark)
