"""How strongly do shocks spill over between growth, inflation, unemployment and interest, and since when?

Diebold and Yilmaz measure connectedness: which share of the forecast error of each variable
comes from shocks to the others. For each window of 20 years of US quarterly data a vector
autoregression y[t] = Phi y[t-1] + u[t], u ~ (0, Sigma), of four variables is estimated; its
moving-average matrices Psi[h] = Phi^h give the generalised variance decomposition

    share[i, j] = sum_h (Psi[h] Sigma)[i, j]^2 / Sigma[j, j]  /  sum_h (Psi[h] Sigma Psi[h]^T)[i, i]

which, unlike one by Cholesky factors, does not depend on the order of the variables. Its rows
are scaled to sum to one; the mean of what is off the diagonal, in per cent, is the index of
total connectedness. How sure is it? Each window is estimated again under 1000 random weightings
of its quarters (the Bayesian bootstrap), and all of those models are decomposed at once: a
stack of dense 4x4 matrices runs through forty quarters of forecasts. Central banks and market
supervisors publish such indices; the bands say which of their moves are more than noise.

Diebold, Yilmaz: Better to give than to receive, Int. J. Forecasting 28 (2012) 57-66.
Pesaran, Shin: Generalized impulse response analysis, Economics Letters 58 (1998) 17-29.
Rubin: The Bayesian bootstrap, Annals of Statistics 9 (1981) 130-134.

The data are FRED series of 1959-2009 that the PyPI package statsmodels ships (macrodata).

    python macro_connectedness.py [--size 1.0] [--repeat 3] [--save result.npz]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.datasets import macrodata

Array = NDArray[np.float64]

WINDOW = 80  # quarters
HORIZON = 40  # quarters of forecasts
DRAWS = 1000  # weightings of each window at size 1
QUANTILES = (0.05, 0.5, 0.95)
EPS = float(np.finfo(np.float64).eps)

# Error of one 4x4 product, max|C - C_exact| <= PRODUCT_ERROR * eps * max|A| * max|B|, where two
# evaluations are compared: textbook sums have the constant 4 * 4, and fast (Strassen-like)
# algorithms, which only know normwise bounds, stay below 300 for one 4x4 block.
PRODUCT_ERROR = 300.0 + 16.0


def load_series() -> tuple[Array, Array]:
    """Dates, and real growth, inflation, unemployment and the 3-month interest rate, all in per cent."""
    data = macrodata.load_pandas().data
    growth = 400.0 * np.diff(np.log(data["realgdp"].to_numpy()))
    rates = data[["infl", "unemp", "tbilrate"]].to_numpy()[1:]
    dates = (data["year"] + (data["quarter"] - 1.0) / 4.0).to_numpy()[1:]
    return dates, np.column_stack([growth, rates])


def estimate(window: Array, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Weighted least squares of the VAR under `draws` random weightings: Phi and Sigma, (draws, 4, 4) each."""
    scaled = (window - window.mean(axis=0)) / window.std(axis=0)
    before, after = scaled[:-1], scaled[1:]
    weights = rng.standard_exponential((draws, len(before)))
    weights /= weights.sum(axis=1, keepdims=True)
    # Weighted second moments of (before, after), about the weighted means.
    pairs = np.column_stack([before, after])
    squares = np.einsum("ti,tj->tij", pairs, pairs)
    means = np.tensordot(weights, pairs, axes=1)
    moments = np.tensordot(weights, squares, axes=1) - np.einsum("ni,nj->nij", means, means)
    xx, xy, yy = moments[:, :4, :4], moments[:, :4, 4:], moments[:, 4:, 4:]
    transposed = np.linalg.solve(xx, xy)
    phi = np.ascontiguousarray(transposed.swapaxes(1, 2))
    sigma = yy - np.einsum("nki,nkj->nij", transposed, xy)
    return phi, (sigma + sigma.swapaxes(1, 2)) / 2.0


def forecasts(phi: Array, sigma: Array) -> Iterator[tuple[Array, Array, Array]]:
    """For each quarter ahead: Psi, its response to shocks Psi Sigma, and the variance Psi Sigma Psi^T."""
    yield np.broadcast_to(np.eye(4), phi.shape), sigma, sigma
    psi = phi
    for h in range(1, HORIZON):
        response = psi @ sigma
        yield psi, response, response @ psi.swapaxes(1, 2)
        if h + 1 < HORIZON:
            psi = psi @ phi


def decompose(phi: Array, sigma: Array) -> tuple[Array, Array, Array]:
    """Shares before scaling, (n, 4, 4): the parts that are explained over the variances, and both of these."""
    explained = np.zeros_like(phi)
    variance = np.zeros_like(phi)
    for _, response, covariance in forecasts(phi, sigma):
        explained += response * response
        variance += covariance
    explained /= np.einsum("njj->nj", sigma)[:, None, :]
    variances = np.einsum("nii->ni", variance)
    return explained / variances[:, :, None], explained, variances


def connectedness(shares: Array) -> tuple[Array, Array]:
    """The scaled table of each model, (n, 4, 4), and its index of total connectedness in per cent."""
    table = shares / shares.sum(axis=2, keepdims=True)
    return table, 100.0 * (1.0 - np.einsum("nii->n", table) / 4.0)


def analyse(series: Array, draws: int) -> dict[str, Array]:
    """Quantiles of the index of every window, and every window's mean table."""
    rng = np.random.default_rng(20120127)
    bands, tables = [], []
    for start in range(len(series) - WINDOW + 1):
        phi, sigma = estimate(series[start : start + WINDOW], draws, rng)
        table, index = connectedness(decompose(phi, sigma)[0])
        bands.append(np.quantile(index, QUANTILES))
        tables.append(table.mean(axis=0))
    return {"index_bands": np.array(bands), "mean_tables": np.array(tables)}


def largest(matrices: Array) -> Array:
    """The largest |entry| of each matrix, shaped so that it multiplies a stack of matrices."""
    return np.abs(matrices).max(axis=(1, 2), keepdims=True)


def row_sums(matrices: Array) -> Array:
    return np.abs(matrices).sum(axis=2, keepdims=True)


def largest_column_sum(matrices: Array) -> Array:
    return np.abs(matrices).sum(axis=1, keepdims=True).max(axis=2, keepdims=True)


def table_error(phi: Array, sigma: Array) -> float:
    """Bound on every entry of the scaled tables of these models, to first order in eps.

    Each product Psi[j] = Psi[j-1] @ Phi adds a new error `rounding[j]` an entry; by quarter h it
    has been multiplied by Phi^(h-j) = Psi[h-j], which magnifies entries by its column sums at
    most. The response and the variance inherit the errors of their factors and add their own;
    the rest is the sums' and the quotients' share. A mean or a quantile of tables moves by no
    more than the table that moves most.
    """
    unit = PRODUCT_ERROR * EPS
    growths: list[Array] = []
    roundings: list[Array] = []
    explained_error = np.zeros_like(phi)
    variance_error = np.zeros_like(phi[:, :, :1])
    shock_variances = np.einsum("njj->nj", sigma)[:, None, :]
    previous = np.ones_like(phi[:, :1, :1])
    for h, (psi, response, _) in enumerate(forecasts(phi, sigma)):
        growths.append(largest_column_sum(psi))
        roundings.append(unit * previous * largest(phi) if h > 1 else np.zeros_like(previous))
        previous = largest(psi)
        psi_error = sum(rounding * growth for rounding, growth in zip(roundings, growths[::-1], strict=True))
        response_error = psi_error * largest_column_sum(sigma) + unit * previous * largest(sigma)
        explained_error += 2.0 * np.abs(response) * response_error / shock_variances
        variance_error += response_error * row_sums(psi) + row_sums(response) * psi_error
        variance_error += unit * largest(response) * previous
    shares, _, variances = decompose(phi, sigma)
    # A share is at most 1 (Cauchy-Schwarz), so the quotient's error is the sum of both errors over the divisor.
    share_error = (explained_error + variance_error) / variances[:, :, None] + 2 * HORIZON * EPS
    # Scaling divides by the row's sum, which holds four such errors; the quotient is at most 1 again.
    table_errors = (share_error + share_error.sum(axis=2, keepdims=True)) / shares.sum(axis=2, keepdims=True)
    return float(table_errors.max()) + 4.0 * EPS


def error_bounds(series: Array, draws: int) -> dict[str, Array]:
    """Bounds on the results of `analyse`, one a window: they redo its random draws."""
    rng = np.random.default_rng(20120127)
    errors = np.array(
        [
            table_error(*estimate(series[start : start + WINDOW], draws, rng))
            for start in range(len(series) - WINDOW + 1)
        ]
    )
    # Of the index: 100 times the mean of four diagonal entries.
    return {"index_bands": 100.0 * errors[:, None], "mean_tables": errors[:, None, None]}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Connectedness of four US macroeconomic series, with error bands.")
    parser.add_argument("--size", type=float, default=1.0, help=f"draws a window, in units of {DRAWS} (default 1)")
    parser.add_argument("--repeat", type=int, default=3, help="times to compute; the best time counts (default 3)")
    parser.add_argument("--save", metavar="FILE.npz", help="write the results here")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    draws = max(20, round(options.size * DRAWS))
    dates, series = load_series()
    seconds = np.inf
    for _ in range(max(1, options.repeat)):
        start = time.perf_counter()
        results = analyse(series, draws)
        seconds = min(seconds, time.perf_counter() - start)

    bands = results["index_bands"]
    print(f"{len(bands)} windows of {WINDOW} quarters, {draws} draws each, {HORIZON} quarters ahead: {seconds:.3f} s")
    for i in (0, len(bands) // 2, len(bands) - 1):
        low, middle, high = bands[i]
        last = dates[i + WINDOW - 1]
        quarter = f"{int(last)}Q{int(4 * (last % 1)) + 1}"
        print(f"Total connectedness up to {quarter}: {middle:.1f} % (90 % band {low:.1f} to {high:.1f})")
    if options.save:
        bounds = {f"{name}_bound": bound for name, bound in error_bounds(series, draws).items()}
        saved: dict[str, Any] = {"seconds": seconds} | results | bounds
        np.savez(options.save, **saved)


if __name__ == "__main__":
    main()
