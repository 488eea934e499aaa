"""The backbones and data sets of a vision experiment: what each is, and where it lies."""

from os.path import exists, isdir, isfile
from pathlib import Path

from prt.atomic import fingerprint
from prt.config import Vision
from prt.plan.jobs import slug
from prt.vision.names import CONFIG, LOCAL, folder_of


class Places:
    """What a configuration's names stand for.

    Paths: ``data/DATASET``, ``backbones/BACKBONE``, ``zero_shot/DATASET/BACKBONE`` (head and pretrained scores).
    """

    def __init__(
        self, config: Vision, experiment: str, few: bool, pretraining_seed: int, stand_ins: bool = False
    ) -> None:
        self.config, self.few, self.pretraining_seed, self.stand_ins = config, few, pretraining_seed, stand_ins
        self.top = f"results/{experiment}/vision"

    @property
    def datasets(self) -> list[str]:
        """The configuration's data sets."""
        return list(self.config.datasets)

    @property
    def clean(self) -> str | None:
        """The data set of Table 5."""
        return self.config.table5.dataset if self.config.table5 else None

    @property
    def noisy(self) -> str | None:
        """The copy of that data set with noise on its images."""
        return f"{self.clean}-noise" if self.clean else None

    def without_noise(self, dataset: str) -> str:
        """The data set itself, or what the noisy copy is a copy of: they share labels, heads and recipes."""
        return str(self.clean) if dataset == self.noisy else dataset

    def source(self, dataset: str) -> str:
        """Where a data set comes from."""
        if dataset == self.noisy and self.config.table5:
            return f"noise:{self.config.table5.noise:g}:{self.top}/data/{self.clean}"
        return self.config.datasets[dataset].source

    def is_miniature(self, backbone: str) -> bool:
        """Whether the pipeline pretrains this backbone itself; such networks are small and run on one CPU core."""
        return self.config.backbones[backbone].spec is None

    def spec(self, backbone: str) -> str:
        """How the package names a backbone: the folder that was made or fetched, or the user's own."""
        folder = self.fetched(backbone)
        if self.is_miniature(backbone):
            folder = f"{self.top}/backbones/{backbone}"
        return f"{LOCAL}{folder}" if folder else str(self.config.backbones[backbone].spec)

    def fetched(self, backbone: str) -> str | None:
        """Where the weights of an open_clip tag are kept, or None for a backbone that has its own files."""
        spec = self.config.backbones[backbone].spec
        if spec is None or folder_of(spec) is not None or isfile(spec.partition("/")[2]):
            return None
        return f"{self.config.downloads}/backbones/{slug(spec)}"

    def weights(self, backbone: str) -> list[str]:
        """What must be there before a backbone can be loaded."""
        spec = self.config.backbones[backbone].spec
        if spec is None or self.fetched(backbone):
            return [f"{self.spec(backbone).removeprefix(LOCAL)}/{CONFIG}"]
        own = str(folder_of(spec) or spec.partition("/")[2])
        return [own] if exists(own) else []

    def receipt(self, dataset: str) -> list[str]:
        """The file that says that a data set's source is fetched; none for a source that is at hand."""
        source = self.source(dataset)
        kind, _, name = source.partition(":")
        at_hand = kind in ("miniature", "folder", "noise") or (kind == "huggingface" and isdir(name))
        return [] if at_hand else [f"{self.config.downloads}/{slug(source)}.json"]

    def state(self, dataset: str) -> str:
        """Names, sizes and times of a user's own image folder: where they change, what hangs on them is made again."""
        kind, _, folder = self.source(dataset).partition(":")
        if kind != "folder":
            return ""
        top = Path(folder)
        shown = (p for p in top.rglob("*") if not any(part.startswith(".") for part in p.relative_to(top).parts))
        files = sorted(path for path in shown if path.is_file())
        return fingerprint([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files])

    def manifest(self, dataset: str) -> str:
        """What says that a data set is prepared."""
        return f"{self.top}/data/{dataset}/manifest.json"

    def zero_shot_folder(self, backbone: str, dataset: str) -> str:
        """Where a backbone's scores for a data set lie, and its head but for the noisy copy."""
        return f"{self.top}/zero_shot/{dataset}/{backbone}"

    def head(self, backbone: str, dataset: str) -> Path:
        """The file of a backbone's head for a data set."""
        return Path(self.zero_shot_folder(backbone, self.without_noise(dataset)), "head.safetensors")

    def architecture(self, backbone: str) -> str | None:
        """What an architecture is called, where its name says it all: not of a folder, which has its own."""
        of = self.config.backbones[backbone]
        if of.spec is None:
            return of.architecture
        return None if folder_of(of.spec) else of.spec.partition("/")[0]

    def network(self, backbone: str) -> str:
        """The architecture of a backbone, as benchmarks of speed read it."""
        return self.spec(backbone) if self._is_small(backbone) else str(self.config.backbones[backbone].spec)

    def _is_small(self, backbone: str) -> bool:
        """Whether a backbone is the pipeline's own work, whose folder alone says what its architecture is."""
        return self.stand_ins or self.is_miniature(backbone)
