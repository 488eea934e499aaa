"""Networks that run as one."""

import copy
import shutil

import pytest
import torch

from prt.vision.backbones import Classifier, build_tower
from prt.vision.fused import Fused

TINY = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}}
LOOK = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def tiny(seed: int, width: int = 32, look: dict[str, list[float]] = LOOK) -> Classifier:
    torch.manual_seed(seed)
    config = {**TINY, "vision_cfg": TINY["vision_cfg"] | {"width": width}}  # type: ignore[operator]
    return Classifier(build_tower(config), torch.randn(7, 16), torch.tensor(20.0), look).eval()


def pictures(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_fused_networks_say_what_each_says_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"mean": [0.5] * 3, "std": [0.5] * 3}
    networks = [tiny(0), tiny(1, width=64), tiny(2, look=other), tiny(3), tiny(4)]
    networks[3].tower.bfloat16()
    first, second = pictures(0), pictures(1)
    images = [first, first, first, first, second]
    alone = [network(x) for network, x in zip(networks, images, strict=True)]
    seen = []
    normalised = Classifier.normalised
    monkeypatch.setattr(Classifier, "normalised", lambda self, x: seen.append(self) or normalised(self, x))
    for one, other_one in zip(Fused(networks)(images), alone, strict=True):
        assert torch.equal(one, other_one)
    # The second network sees what the first does; then come another look, another precision, another image.
    assert seen == [networks[0], *networks[2:]]
    seen.clear()
    assert torch.equal(Fused(networks[:2], share=False)([first, first])[1], alone[1])
    assert seen == networks[:2]


@torch.no_grad()
def test_bf16_stays_near() -> None:
    network = tiny(0)
    half = copy.deepcopy(network)
    half.tower.bfloat16()
    logits = Fused([half])([pictures(0)])[0]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, network(pictures(0)))
    torch.testing.assert_close(logits, network(pictures(0)), atol=0.3, rtol=0.02)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@torch.no_grad()
def test_compiled_networks_say_the_same() -> None:
    network = tiny(0)
    assert torch.allclose(Fused([network], compiled=True)([pictures(0)])[0], network(pictures(0)), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_streams_on_a_gpu() -> None:
    networks = [tiny(0).cuda(), tiny(1, width=64).cuda()]
    fused, plain = Fused(networks), Fused(networks, streams=False)
    for seed in range(50):  # memory is used again and again
        images = pictures(seed).cuda()
        for one, other in zip(fused([images, images]), plain([images, images]), strict=True):
            torch.testing.assert_close(one, other)
        del images
