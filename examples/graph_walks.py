"""Exact counts of walks in social networks, by powers of integer adjacency matrices.

Entry (i, j) of A^k counts the walks of k steps from node i to node j. Sociologists use these
counts as measures of influence and cohesion (Katz, communicability, triangles), and chemists
and machine learners compare graphs by them: in the direct product of two graphs a walk is a
pair of walks of the same length, so its counts are the random-walk kernel of the two graphs.
In floating point the counts are rounded from 2^53 on; in 64-bit integers they are exact up to
2^63, and whether two nodes have the same number of walks is a question with an exact answer.

Three networks, all shipped by networkx:
  scenes     line graph of Les Miserables: a node is a pair of characters who meet (254 nodes)
  women      direct product of Florentine marriages and the Southern women's events (480 nodes)
  club       direct product of Florentine marriages and the karate club (510 nodes)

Walks of up to LONGEST = 10 steps are counted. No count wraps: the program adds up all walks of
that length in Python's unbounded integers and refuses to go on where the sum reaches 2^63. It
also checks its counts: in the scenes rows against Python integers, in the products every entry,
for there (A x B)^k = A^k x B^k.

    python graph_walks.py [--size 1.0] [--repeat 3] [--save result.npz]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

LONGEST = 10  # steps


def adjacency(graph: nx.Graph, share: float) -> Counts:
    """0/1 adjacency matrix, best connected nodes first; only those where a share below 1 is wanted."""
    ordered = sorted(graph, key=lambda node: (-graph.degree[node], str(node)))
    kept = ordered[: max(4, round(share * len(graph)))]
    matrix: Counts = nx.to_numpy_array(graph, nodelist=kept, dtype=np.int64, weight=None)
    return matrix


def load_networks(size: float) -> tuple[dict[str, Counts], dict[str, tuple[Counts, Counts]]]:
    """The adjacency matrices, and of the product graphs both factors; work is proportional to size, at most 1."""
    share = min(size, 1.0) ** (1.0 / 3.0)
    scenes = adjacency(nx.line_graph(nx.les_miserables_graph()), share)
    florence = adjacency(nx.florentine_families_graph(), share**0.5)
    women = adjacency(nx.davis_southern_women_graph(), share**0.5)
    club = adjacency(nx.karate_club_graph(), share**0.5)
    factors = {"women": (florence, women), "club": (florence, club)}
    networks = {"scenes": scenes} | {name: np.kron(*pair) for name, pair in factors.items()}
    return networks, factors


def count_walks(matrix: Counts) -> dict[str, Counts]:
    """Walks of LONGEST steps between all nodes, closed and all walks of every length, triangles at each node."""
    walks = matrix
    closed = [np.trace(walks)]
    total = [walks.sum()]
    for length in range(2, LONGEST + 1):
        walks = walks @ matrix
        closed.append(np.trace(walks))
        total.append(walks.sum())
        if length == 3:
            triangles = np.diag(walks) // 2
    return {"walks": walks, "closed": np.array(closed), "total": np.array(total), "triangles": triangles}


def analyse(networks: dict[str, Counts]) -> dict[str, Counts]:
    return {
        f"{name}_{what}": values for name, matrix in networks.items() for what, values in count_walks(matrix).items()
    }


def walks_from(matrix: Counts, node: int) -> list[int]:
    """Walks of LONGEST steps from one node to each, in Python's integers."""
    neighbours = [np.flatnonzero(row).tolist() for row in matrix]
    counts = [int(i == node) for i in range(len(matrix))]
    for _ in range(LONGEST):
        counts = [sum(counts[j] for j in near) for near in neighbours]
    return counts


def all_walks(matrix: Counts) -> int:
    """Number of all walks of LONGEST steps, in Python's integers."""
    neighbours = [np.flatnonzero(row).tolist() for row in matrix]
    counts = [1] * len(matrix)
    for _ in range(LONGEST):
        counts = [sum(counts[j] for j in near) for near in neighbours]
    return sum(counts)


def power(matrix: Counts) -> NDArray[np.object_]:
    """matrix^LONGEST in Python's integers."""
    return np.array([walks_from(matrix, node) for node in range(len(matrix))], dtype=object)


def check_range(networks: dict[str, Counts]) -> None:
    for name, matrix in networks.items():
        if all_walks(matrix) >= 2**63:
            raise OverflowError(f"walks of {LONGEST} steps in {name} do not fit 64-bit integers")


def check_counts(
    results: dict[str, Counts], networks: dict[str, Counts], factors: dict[str, tuple[Counts, Counts]]
) -> int:
    """Compare with Python's integers; the number of entries that were compared."""
    walks = results["scenes_walks"]
    nodes = range(0, len(walks), 50)
    if any(walks[node].tolist() != walks_from(networks["scenes"], node) for node in nodes):
        raise ArithmeticError("the counts of scenes are wrong")
    compared = len(nodes) * len(walks)
    for name, (left, right) in factors.items():
        if not np.array_equal(results[f"{name}_walks"], np.kron(power(left), power(right))):
            raise ArithmeticError(f"the counts of {name} are wrong")
        compared += results[f"{name}_walks"].size
    return compared


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exact counts of walks in social networks.")
    parser.add_argument("--size", type=float, default=1.0, help="share of the work, by leaving nodes out (default 1)")
    parser.add_argument("--repeat", type=int, default=3, help="times to compute; the best time counts (default 3)")
    parser.add_argument("--save", metavar="FILE.npz", help="write the results here")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    networks, factors = load_networks(options.size)
    check_range(networks)
    seconds = np.inf
    for _ in range(max(1, options.repeat)):
        start = time.perf_counter()
        results = analyse(networks)
        seconds = min(seconds, time.perf_counter() - start)
    compared = check_counts(results, networks, factors)

    print(f"Walks of 1 to {LONGEST} steps: {seconds:.3f} s; {compared} counts agree with Python's integers")
    for name, matrix in networks.items():
        print(
            f"{name}: {len(matrix)} nodes, {results[f'{name}_triangles'].sum() // 3} triangles, "
            f"{results[f'{name}_total'][-1]} walks of {LONGEST} steps, {results[f'{name}_closed'][-1]} of them closed"
        )
    if options.save:
        saved: dict[str, Any] = {"seconds": seconds} | results
        np.savez(options.save, **saved)


if __name__ == "__main__":
    main()
