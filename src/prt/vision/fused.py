"""Several classifiers run as one: what the two networks of PRT, or the three of EFT, can share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prt.vision.backbones import Classifier


class Fused:
    """Classifiers on one device, in eval mode, that see the same pictures.

    Args:
        classifiers: they are used as they are. With the defaults the logits are theirs to the last bit.
        share: images that several of them see alike are normalised once.
        streams: on a GPU, each of several classifiers gets a CUDA stream: one fills the gaps that another leaves.
        compiled: each classifier, its normalisation included, is compiled by torch.compile at its first call.
    """

    def __init__(
        self, classifiers: Sequence[Classifier], *, share: bool = True, streams: bool = True, compiled: bool = False
    ) -> None:
        self.classifiers, self.share = list(classifiers), share
        self.compiled = [torch.compile(c, dynamic=False) for c in classifiers] if compiled else None
        self.looks = [(c.mean.tolist(), c.std.tolist(), c.dtype) for c in classifiers]
        # The largest is launched first: the others run beside it, and it is not left over at the end.
        sizes = [sum(p.numel() for p in c.parameters()) for c in classifiers]
        self.order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        device = classifiers[0].head.device
        many = streams and device.type == "cuda" and len(sizes) > 1
        self.streams = [torch.cuda.Stream(device) for _ in sizes] if many else None

    def __call__(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, L) of each classifier for its uint8 images (N, 3, S, S).

        Classifiers that see alike are best given one and the same tensor.
        """
        inputs = list(images) if self.compiled else self._normalised(images)
        run: list[Callable[[Tensor], Tensor]] = self.compiled or [c.logits for c in self.classifiers]
        outputs = [inputs[0]] * len(inputs)
        if self.streams is None:
            for i in self.order:
                outputs[i] = run[i](inputs[i])
            return outputs
        here = torch.cuda.current_stream(inputs[0].device)
        for i in self.order:
            # After all that was queued here: what made the inputs, and what last read the outputs of the call before.
            self.streams[i].wait_stream(here)
            with torch.cuda.stream(self.streams[i]):
                outputs[i] = run[i](inputs[i])
        for i in self.order:
            # Memory of the inputs, once freed, goes to later work of this stream, which waits here for all readers.
            here.wait_stream(self.streams[i])
            # Memory of an output goes back to its own stream, which must not write to it while this one still reads.
            outputs[i].record_stream(here)
        return outputs

    def _normalised(self, images: Sequence[Tensor]) -> list[Tensor]:
        made: list[Tensor] = []
        for i, classifier in enumerate(self.classifiers):
            alike = (j for j in range(i) if images[j] is images[i] and self.looks[j] == self.looks[i])
            first = next(alike, None) if self.share else None
            made.append(classifier.normalised(images[i]) if first is None else made[first])
        return made
