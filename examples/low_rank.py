"""How many numbers does a picture need, and how many a handwritten digit?

The singular value decomposition answers both. Cut after k terms, A = sum s[i] u[i] v[i]^T is the
best approximation of rank k that there is, and its error is known before it is made: the root of
the sum of squares of the singular values that were left out (Eckart and Young). Three uses of it:

  pictures  Each colour channel becomes k columns, k rows and k numbers. How much smaller is the
            picture, and how far off? In double and in single precision: is single enough?
  digits    Principal components: how many directions hold 90 % of what differs between 1797
            handwritten digits of 8x8 pixels?
  reading   The leading singular vectors of all training pictures of one digit span what that digit
            looks like. A new picture is read as the digit whose subspace is nearest (Elden); the
            simpler rule, the digit whose mean picture is nearest, shows what that gains.

Every decomposition is checked once the clock has stopped: does U S V^T give the matrix back, are
the singular vectors orthonormal, are the errors those that Eckart and Young promise, and does
scikit-learn's PCA find the same variances?

Eckart, Young: The approximation of one matrix by another of lower rank, Psychometrika 1 (1936) 211-218.
Elden: Numerical linear algebra in data mining, Acta Numerica 15 (2006) 327-384.

Two photographs and the digits come with the PyPI package scikit-learn (load_sample_images, load_digits).

    python low_rank.py [--size 1.0] [--repeat 3] [--save result.npz]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import svd
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA

Array = NDArray[Any]  # of float64 or float32
Labels = NDArray[np.int64]

RANKS = (5, 20, 50, 100)
KEPT_RANK = 50  # of the approximate pictures that are saved
SHARES = (0.5, 0.9, 0.99)  # of the variance
COMPONENTS = 10  # of a digit's subspace

# What a decomposition of an m x n matrix must keep, in units of max(m, n) eps: |A - U S V^T| / s[0],
# |U^T U - I| and |V^T V - I| in the Frobenius norm. LAPACK stays below 1.
QUALITY = 2.0


class Factors(NamedTuple):
    """The thin decomposition A = U diag(s) V^T."""

    u: Array
    s: Array
    vt: Array

    def truncated(self, rank: int) -> Array:
        """The best approximation of A of this rank."""
        return (self.u[:, :rank] * self.s[:rank]) @ self.vt[:rank]


class Digits(NamedTuple):
    """Pictures as rows of 64 pixels, and what they show."""

    train: Array
    train_labels: Labels
    test: Array
    test_labels: Labels


def load_pictures(size: float) -> dict[str, list[Array]]:
    """Red, green and blue, 0 to 1, of photographs with `size` times 427 x 640 pixels, in two precisions."""
    data = load_sample_images()
    pictures = {}
    for file, pixels in zip(data.filenames, data.images, strict=True):
        if size != 1.0:
            height, width = (max(2 * KEPT_RANK, round(side * size**0.5)) for side in pixels.shape[:2])
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
        for dtype in (np.float64, np.float32):
            channels = np.moveaxis(pixels, 2, 0).astype(dtype) / dtype(255)
            pictures[f"{Path(file).stem}_{dtype.__name__}"] = list(channels)
    return pictures


def load_halves() -> Digits:
    """The digits, the first half to learn from."""
    pictures, labels = load_digits(return_X_y=True)
    half = len(labels) // 2
    return Digits(pictures[:half], labels[:half], pictures[half:], labels[half:])


def training_sets(digits: Digits) -> list[Array]:
    """The training pictures of 0, of 1, ..., of 9."""
    return [digits.train[digits.train_labels == digit] for digit in range(10)]


def centred(digits: Digits) -> Array:
    """All pictures, less the mean picture."""
    pictures = np.concatenate([digits.train, digits.test])
    return pictures - pictures.mean(axis=0)


# ---- what is timed ---------------------------------------------------------------------------


def relative_errors(channels: list[Array], factors: list[Factors]) -> Array:
    """|A - A_k| / |A| of a whole picture, for each k of RANKS; computed in double precision."""
    exact = np.array(channels, dtype=np.float64)
    approximations = (np.array([each.truncated(rank) for each in factors]) for rank in RANKS)
    return np.array([np.sqrt(np.sum((exact - each) ** 2) / np.sum(exact**2)) for each in approximations])


def read_by_subspace(test: Array, classes: list[Factors]) -> Labels:
    """For each picture the digit whose subspace is nearest."""
    inside = [np.sum((test @ factors.vt[:COMPONENTS].T) ** 2, axis=1) for factors in classes]
    return np.argmax(inside, axis=0)


def analyse(
    pictures: dict[str, list[Array]], digits: Digits
) -> tuple[dict[str, list[Factors]], dict[str, Array], Array, Labels]:
    """All decompositions, the pictures' errors, the components that hold SHARES, the test labels."""
    factors = {name: [Factors(*svd(a, full_matrices=False)) for a in channels] for name, channels in pictures.items()}
    errors = {name: relative_errors(channels, factors[name]) for name, channels in pictures.items()}

    components = Factors(*svd(centred(digits), full_matrices=False))
    explained = np.cumsum(components.s**2) / np.sum(components.s**2)
    needed = 1 + np.searchsorted(explained, SHARES)

    classes = [Factors(*svd(members, full_matrices=False)) for members in training_sets(digits)]
    labels = read_by_subspace(digits.test, classes)
    return factors | {"digits": [components], "classes": classes}, errors, needed, labels


# ---- checks and bounds -----------------------------------------------------------------------


def unit(matrix: Array) -> float:
    return float(max(matrix.shape) * np.finfo(matrix.dtype).eps)


def check_factors(matrix: Array, factors: Factors) -> float:
    """The worst of the residual and both departures from orthonormality, in units of max(m, n) eps."""
    u, s, vt = (each.astype(np.float64) for each in factors)
    identity = np.eye(len(s))
    departures = (
        np.linalg.norm(matrix - (u * s) @ vt) / s[0],
        np.linalg.norm(u.T @ u - identity),
        np.linalg.norm(vt @ vt.T - identity),
    )
    worst = float(max(departures)) / unit(matrix)
    if not worst <= QUALITY or np.any(np.diff(s) > 0.0) or s[-1] < 0.0:
        raise ArithmeticError(f"not a singular value decomposition: {worst:.3g} max(m, n) eps off")
    return worst


def relative_bound(matrix: Array) -> float:
    """How far apart two decompositions' singular values may be, over the largest.

    What is decomposed is the matrix up to the residual, QUALITY units of s[0]; that the vectors
    are not quite orthonormal counts for as much again. Singular values move no further than the
    matrix does (Weyl), nor does the error of an approximation. Two decompositions: twice that.
    """
    return 4.0 * QUALITY * unit(matrix)


def approximation_bound(matrix: Array, s: Array, rank: int) -> float:
    """How far apart two best approximations of one rank may be.

    They move s[k-1] / (s[k-1] - s[k]) times as far as the matrix, to first order: the closer the
    singular values on both sides of the cut, the less it is determined what to keep.
    """
    return relative_bound(matrix) * float(s[0] * s[rank - 1] / (s[rank - 1] - s[rank]))


def check_errors(name: str, channels: list[Array], factors: list[Factors], errors: Array) -> None:
    """Compare with the singular values that were left out."""
    norm = np.linalg.norm(np.array(channels, dtype=np.float64))
    s = np.array([each.s for each in factors], dtype=np.float64)
    promised = np.array([np.linalg.norm(s[:, rank:]) for rank in RANKS]) / norm
    if not np.all(np.abs(errors - promised) <= relative_bound(channels[0])):
        raise ArithmeticError(f"{name}: errors {errors}, and not {promised}")


def check_components(matrix: Array, s: Array) -> None:
    """Compare with scikit-learn."""
    variances = PCA(svd_solver="full").fit(matrix).explained_variance_
    if not np.all(np.abs(s**2 / (len(matrix) - 1) - variances) <= 2.0 * variances[0] * relative_bound(matrix)):
        raise ArithmeticError("scikit-learn finds other principal components")


def with_bounds(matrices: dict[str, list[Array]], factors: dict[str, list[Factors]]) -> dict[str, Any]:
    """What two decompositions of one matrix have in common, and how much they may differ in it.

    Singular vectors do not belong there: their signs are free, and where singular values meet,
    they are. Approximations do, where the precision determines them.
    """
    saved: dict[str, Any] = {}
    for name, group in matrices.items():
        s = np.array([each.s for each in factors[name]])
        saved[f"{name}_s"] = s
        saved[f"{name}_s_bound"] = relative_bound(group[0]) * s[:, :1].astype(np.float64)
        if group[0].dtype == np.float64:
            rank = COMPONENTS if name == "digits" else KEPT_RANK
            bounds = [approximation_bound(a, each.s, rank) for a, each in zip(group, factors[name], strict=True)]
            saved[f"{name}_rank_{rank}"] = np.array([each.truncated(rank) for each in factors[name]])
            saved[f"{name}_rank_{rank}_bound"] = np.array(bounds)[:, None, None]
    return saved


# ---- the program -----------------------------------------------------------------------------


def signal_to_noise(channels: list[Array], error: float) -> float:
    """Peak signal-to-noise ratio in dB of pixels from 0 to 1, from the relative error."""
    return float(-10.0 * np.log10(error**2 * np.mean(np.array(channels, dtype=np.float64) ** 2)))


def print_pictures(pictures: dict[str, list[Array]], errors: dict[str, Array]) -> None:
    print(f"{'picture':16}{'rank':>5}{'numbers kept':>14}{'relative error':>16}{'PSNR, dB':>10}")
    for name, channels in pictures.items():
        m, n = channels[0].shape
        for rank, error in zip(RANKS, errors[name], strict=True):
            kept = rank * (m + n + 1) / (m * n)
            print(f"{name:16}{rank:5}{kept:14.1%}{error:16.6f}{signal_to_noise(channels, error):10.4f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Low-rank pictures, principal components and subspaces of digits.")
    parser.add_argument("--size", type=float, default=1.0, help="pixels of a photograph, in units of 427 x 640")
    parser.add_argument("--repeat", type=int, default=3, help="times to compute; the best time counts (default 3)")
    parser.add_argument("--save", metavar="FILE.npz", help="write the results here")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    pictures = load_pictures(options.size)
    digits = load_halves()
    seconds = np.inf
    for _ in range(max(1, options.repeat)):
        start = time.perf_counter()
        factors, errors, needed, labels = analyse(pictures, digits)
        seconds = min(seconds, time.perf_counter() - start)

    compared = pictures | {"digits": [centred(digits)]}
    matrices = compared | {"classes": training_sets(digits)}
    pairs = [pair for name, group in matrices.items() for pair in zip(group, factors[name], strict=True)]
    worst = max(check_factors(*pair) for pair in pairs)
    for name, channels in pictures.items():
        check_errors(name, channels, factors[name], errors[name])
    check_components(compared["digits"][0], factors["digits"][0].s)

    print(f"{len(pairs)} decompositions and their use: {seconds:.3f} s; worst quality {worst:.2f} max(m, n) eps")
    print_pictures(pictures, errors)
    print("Components of the digits: " + ", ".join(f"{k} hold {p:.0%}" for k, p in zip(needed, SHARES, strict=True)))
    means = [members.mean(axis=0) for members in training_sets(digits)]
    by_mean = np.argmin([np.sum((digits.test - mean) ** 2, axis=1) for mean in means], axis=0)
    right, simply = (np.mean(each == digits.test_labels) for each in (labels, by_mean))
    print(f"Read rightly: {right:.1%} of {len(labels)} by subspaces of {COMPONENTS} dimensions, {simply:.1%} by means")
    if options.save:
        saved: dict[str, Any] = {"seconds": seconds, "components": needed, "labels": labels}
        saved |= with_bounds(compared, factors)
        for name, channels in pictures.items():
            saved |= {f"{name}_errors": errors[name], f"{name}_errors_bound": relative_bound(channels[0])}
        np.savez(options.save, **saved)


if __name__ == "__main__":
    main()
