"""Write the straight-line code that is made from factor tables and from other sources of this project.

    python csrc/generate.py             write every generated file that differs
    python csrc/generate.py --check     write nothing; print what differs, exit status 1 if anything does

OUTPUTS, at the end, lists the files. How a table becomes code: the linear forms of A, of B and of C are three sets
of sums of +-1 times a variable; in each, the pair of terms that occurs most often becomes a variable of its own until
none occurs twice; then the products are put into an order that keeps few values alive.
"""

import argparse
import difflib
import functools
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from factor_tables import FactorTable, Form, parse

ROOT = Path(__file__).resolve().parent.parent
TABLE = "csrc/factors/alphatensor49.txt"
INCLUDE = "csrc/products/alphatensor49_generated.inc"
FORMS = "csrc/products/alphatensor49_forms_generated.inc"
DGEMM = "fortran/dgemm_alpha.f90"
SGEMM = "fortran/sgemm_alpha.f90"
BEGIN, END = "! BEGIN GENERATED", "! END GENERATED"
# A block holds twice as many numbers of half the size.
SINGLE = [
    ("DOUBLE PRECISION", "REAL"),
    ("DGEMM", "SGEMM"),
    ("dgemm", "sgemm"),
    ("wp => c_double", "wp => c_float"),
    ("rows = 32", "rows = 64"),
    ("width = 16", "width = 32"),
]

# Greedy elimination breaks ties at random; the best of this many tries is kept. The seeds are fixed, and only
# Random.random() is used, whose sequence Python guarantees across versions.
TRIES = 40
# The search for an order of the products keeps this many partial orders.
BEAM = 24

Sum = dict[str, int]  # variable -> +1 or -1


class Operation(NamedTuple):
    """target = left (+, - or *) right, on variables."""

    target: str
    operator: str
    left: str
    right: str


# ---- common subexpressions --------------------------------------------------


@dataclass
class Sums:
    """Sums over common variables: `shared` defines the common ones, in order of definition."""

    shared: dict[str, Sum]
    sums: list[Sum]

    @property
    def additions(self) -> int:
        return sum(len(terms) - 1 for terms in [*self.shared.values(), *self.sums])


def _pairs(terms: Sum) -> list[tuple[str, str, int]]:
    """All pairs of terms: x, y and the sign of y relative to x."""
    names = sorted(terms)
    return [(x, y, terms[x] * terms[y]) for i, x in enumerate(names) for y in names[i + 1 :]]


def _eliminate(forms: Sequence[Sum], prefix: str, seed: int) -> Sums:
    rng = random.Random(seed)
    sums = [dict(form) for form in forms]
    shared: dict[str, Sum] = {}
    counts = Counter(pair for terms in sums for pair in _pairs(terms))
    while counts and (most := max(counts.values())) > 1:
        ties = sorted(pair for pair, count in counts.items() if count == most)
        x, y, sign = ties[int(rng.random() * len(ties))]
        name = f"{prefix}{len(shared) + 1}"
        shared[name] = {x: 1, y: sign}
        for terms in sums:
            if x in terms and y in terms and terms[x] * terms[y] == sign:
                counts.subtract(_pairs(terms))
                terms[name] = terms.pop(x)
                del terms[y]
                counts.update(_pairs(terms))
    return Sums(shared, sums)


def share(forms: Sequence[Sum], prefix: str) -> Sums:
    """The best greedy elimination of common pairs from the forms."""
    return min((_eliminate(forms, prefix, seed) for seed in range(TRIES)), key=lambda result: result.additions)


def _integer_form(form: Form, matrix: str) -> Sum:
    terms = {}
    for (row, column), x in form.items():
        if x.im or abs(x.re) != 1:
            raise ValueError(f"coefficient {x} is not +-1: straight-line code is made from tables over -1, 0, 1")
        terms[f"{matrix}{row}{column}"] = int(x.re)
    return terms


@dataclass
class Algorithm:
    """A table as sums: product r is (a.sums[r]) * (b.sums[r]) and is called m<r + 1>; c.sums are the entries of C."""

    a: Sums
    b: Sums
    c: Sums
    outputs: list[str]

    @property
    def additions(self) -> int:
        return self.a.additions + self.b.additions + self.c.additions


def _positive(side: Sums) -> list[int]:
    """Negate the sums that have no positive term (they would need a negation); return the signs taken out."""
    signs = []
    for r, terms in enumerate(side.sums):
        sign = 1 if max(terms.values()) > 0 else -1
        side.sums[r] = {name: sign * x for name, x in terms.items()}
        signs.append(sign)
    return signs


def algorithm(table: FactorTable) -> Algorithm:
    a = share([_integer_form(product.a, "a") for product in table.products], "p")
    b = share([_integer_form(product.b, "b") for product in table.products], "q")
    signs = [x * y for x, y in zip(_positive(a), _positive(b), strict=True)]
    entries: dict[str, Sum] = {}
    for r, (product, sign) in enumerate(zip(table.products, signs, strict=True), 1):
        for name, x in _integer_form(product.c, "c").items():
            entries.setdefault(name, {})[f"m{r}"] = sign * x
    outputs = sorted(entries)
    return Algorithm(a, b, share([entries[name] for name in outputs], "u"), outputs)


# ---- order -------------------------------------------------------------------


@dataclass
class Schedule:
    """Part of the code: what was emitted, and which values later code still needs.

    A sum of the output side accumulates: as soon as a term exists it is added to what the sum holds already,
    `held`, so a product lives only until it has been added everywhere. `held` carries a sign because a sum may
    start with negative terms; it becomes positive with the first positive term.
    """

    code: Algorithm
    uses: Counter[str]  # of a variable, still to come
    held: dict[str, tuple[str, int]] = field(default_factory=dict)  # sum -> variable, sign
    missing: dict[str, int] = field(default_factory=dict)  # sum -> terms still to come
    known: frozenset[str] = frozenset()
    alive: frozenset[str] = frozenset()  # values that later code reads; entries of A, B, C are memory, not counted
    done: tuple[int, ...] = ()
    operations: tuple[Operation, ...] = ()
    cost: int = 0
    peak: int = 0

    def copy(self) -> "Schedule":
        return Schedule(
            self.code, self.uses.copy(), dict(self.held), dict(self.missing), self.known, self.alive, self.done,
            self.operations, self.cost, self.peak,
        )  # fmt: skip

    def _use(self, *names: str) -> None:
        for name in names:
            self.uses[name] -= 1
            if self.uses[name] == 0:
                self.alive -= {name}

    def _emit(self, target: str, operator: str, left: str, right: str) -> None:
        self.operations += (Operation(target, operator, left, right),)
        self._use(left, right)
        if self.uses[target]:
            self.alive |= {target}
        self.peak = max(self.peak, len(self.alive))
        self.cost += len(self.alive)

    def _sum(self, name: str, terms: Sum) -> str:
        """Emit a sum of the input side; a single term is its own value."""
        ordered = sorted(terms, key=lambda term: (-terms[term], term))
        value = ordered[0]
        for i, term in enumerate(ordered[1:], 1):
            target = name if i == len(ordered) - 1 else f"{name}_{i}"
            self.uses[target] += i < len(ordered) - 1
            self._emit(target, "+" if terms[term] > 0 else "-", value, term)
            value = target
        return value

    def _define(self, side: Sums, name: str) -> None:
        """Emit a shared variable of the input side and those that it needs."""
        if name in side.shared and name not in self.known:
            for term in side.shared[name]:
                self._define(side, term)
            self._sum(name, side.shared[name])
            self.known |= {name}

    def _arrive(self, term: str, sums: Mapping[str, Sum]) -> None:
        """Add a finished value of the output side to every sum that has it as a term."""
        consumers = sorted((name for name in sums if term in sums[name]), key=lambda name: self.missing[name])
        for name in consumers:
            sign = sums[name][term]
            self.missing[name] -= 1
            last = self.missing[name] == 0
            if name not in self.held:
                self.held[name] = term, sign
                if last:
                    raise ValueError(f"{name} has a single term")
                continue
            value, held_sign = self.held[name]
            target = name if last else f"{name}_{self.missing[name]}"
            if not last:
                self.uses[target] += 1
            if sign == held_sign:
                self._emit(target, "+", value, term)
            elif sign > 0:
                self._emit(target, "-", term, value)
            else:
                self._emit(target, "-", value, term)
            self.held[name] = target, 1 if sign != held_sign else sign
            if last:
                if self.held[name][1] < 0:
                    raise ValueError(f"{name} has no positive term")
                self._arrive(name, sums)

    def multiply(self, r: int, sums: Mapping[str, Sum]) -> None:
        """Emit product r (from 0), what it needs, and the sums that it feeds."""
        factors = []
        for side, letter in ((self.code.a, "l"), (self.code.b, "r")):
            for term in side.sums[r]:
                self._define(side, term)
            name = f"{letter}{r + 1}"
            if len(side.sums[r]) > 1:
                self.uses[name] += 1
            factors.append(self._sum(name, side.sums[r]))
        self._emit(f"m{r + 1}", "*", *factors)
        self._arrive(f"m{r + 1}", sums)
        self.done += (r,)


def schedule(code: Algorithm) -> Schedule:
    """Order the products by a beam search for the least sum of live values over time."""
    sums = {**code.c.shared, **dict(zip(code.outputs, code.c.sums, strict=True))}
    uses: Counter[str] = Counter()
    for side in (code.a, code.b, code.c):
        for terms in [*side.shared.values(), *side.sums]:
            uses.update(terms.keys())
    start = Schedule(code, uses, missing={name: len(terms) for name, terms in sums.items()})
    beam = [start]
    for _ in code.a.sums:
        grown: dict[frozenset[int], Schedule] = {}
        for partial in beam:
            for r in set(range(len(code.a.sums))) - set(partial.done):
                longer = partial.copy()
                longer.multiply(r, sums)
                grown.setdefault(frozenset(longer.done), longer)
        beam = sorted(grown.values(), key=lambda s: (s.cost, s.peak, s.done))[:BEAM]
    return beam[0]


@functools.cache
def _table() -> FactorTable:
    return parse(ROOT / TABLE)


@functools.cache
def _straight_line() -> list[Operation]:
    return straight_line(_table())


def straight_line(table: FactorTable) -> list[Operation]:
    """The whole algorithm in order: products are m1..., other values t1... in order of definition."""
    operations = schedule(algorithm(table)).operations
    names: dict[str, str] = {}
    for operation in operations:
        # Products and entries of C keep their names; a partial sum of an entry, c11_2, is a value as any other.
        if operation.operator != "*" and (operation.target[0] != "c" or "_" in operation.target):
            names[operation.target] = f"t{len(names) + 1}"

    def renamed(name: str) -> str:
        return names.get(name, name)

    return [Operation(renamed(o.target), o.operator, renamed(o.left), renamed(o.right)) for o in operations]


# ---- texts -------------------------------------------------------------------


def notice(comment: str, source: str) -> str:
    return f"{comment} Generated by csrc/generate.py from {source}; do not edit."


def c_include() -> str:
    """The algorithm as a C function body over a type and operations that the including file defines."""

    def element(name: str) -> str:
        return f"{name[0]}[{(int(name[1]) - 1) * 4 + int(name[2]) - 1}]" if name[0] in "abc" else name

    operations = _straight_line()
    additions = sum(operation.operator != "*" for operation in operations)
    lines = [
        notice("//", TABLE),
        "//",
        f"// One 4 x 4 product by {_table().rank} multiplications and {additions} additions,",
        "// entries row-major: a[0] is a11, a[1] is a12.",
        "// Define LAI_NAME(name), the type LAI_V and ADD(x, y), SUB(x, y), MUL(x, y) before including this file.",
        "static inline void LAI_NAME(alphatensor49_block)(const LAI_V a[16], const LAI_V b[16], LAI_V c[16])",
        "{",
    ]
    macros = {"+": "ADD", "-": "SUB", "*": "MUL"}
    for target, operator, left, right in operations:
        declared = element(target) if target[0] == "c" else f"const LAI_V {target}"
        lines.append(f"    {declared} = {macros[operator]}({element(left)}, {element(right)});")
    return "\n".join([*lines, "}", ""])


def _c_statements(vector: str, names: dict[str, str], steps: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Statements of `steps` (target, operator, left, right; without operator a copy) in C, by the values' names."""
    macros = {"+": "ADD", "-": "SUB"}
    lines = []
    for target, operator, left, right in steps:
        value = f"{macros[operator]}({names[left]}, {names[right]})" if operator else names[left]
        if target.startswith("LAI_FORM"):
            lines.append(f"    {target}, {value});")
        elif target not in names:
            names[target] = target
            lines.append(f"    const {vector} {target} = {value};")
        else:
            lines.append(f"    {names[target]} = {value};")
    return lines


def _c_forms(operations: Sequence[Operation], matrix: str) -> list[str]:
    """The forms of A or of B as a C function; each is stored as soon as it is known."""
    side, vector = (2, "LAI_VA") if matrix == "a" else (3, "LAI_VB")
    needed = {o[side] for o in operations if o.operator == "*"}
    for o in reversed(operations):
        if o.operator != "*" and o.target in needed:
            needed |= {o.left, o.right}
    names = {f"{matrix}{i}{j}": f"{matrix}[{4 * i + j - 5}]" for i in range(1, 5) for j in range(1, 5)}
    steps: list[tuple[str, str, str, str]] = []
    for o in operations:
        if o.operator == "*":
            steps.append((f"LAI_FORM_{matrix.upper()}({int(o.target[1:]) - 1}", "", o[side], ""))
        elif o.target in needed:
            steps.append((o.target, o.operator, o.left, o.right))
    arguments = f"const {vector} {matrix}[16], LAI_T *to, intptr_t stride"
    head = f"LAI_INLINE void LAI_NAME(alphatensor49_forms_{matrix})({arguments})"
    return [head, "{", *_c_statements(vector, names, steps), "}"]


def _c_entries(operations: Sequence[Operation]) -> list[str]:
    """The entries of C from the products as a C function."""
    names = {o.target: f"LAI_PRODUCT({int(o.target[1:]) - 1})" for o in operations if o.operator == "*"}
    steps = []
    for o in operations:
        known = names.keys() | {target for target, *_ in steps}
        if o.operator != "*" and o.left in known and o.right in known:
            steps.append(tuple(o))
    names |= {f"c{i}{j}": f"c[{4 * i + j - 5}]" for i in range(1, 5) for j in range(1, 5)}
    head = "LAI_INLINE void LAI_NAME(alphatensor49_entries)(const LAI_T *from, intptr_t stride, LAI_VB c[16])"
    return [head, "{", *_c_statements("LAI_VB", names, steps), "}"]


def c_forms() -> str:
    """The three linear parts of the algorithm, one function each, for products of whole blocks in between."""
    operations = _straight_line()
    return "\n".join(
        [
            notice("//", TABLE),
            "//",
            "// The algorithm on both sides of its 49 products: the forms of A and of B, the entries of C.",
            "// Define LAI_NAME(name), LAI_INLINE, LAI_T, its vectors LAI_VA (for A) and LAI_VB (for B and C),",
            "// ADD(x, y), SUB(x, y), LAI_FORM_A(r, x) and LAI_FORM_B(r, x), which store form r at `to`, `stride`",
            "// elements apart, and LAI_PRODUCT(r), which reads product r likewise at `from`, before including it.",
            *_c_forms(operations, "a"),
            "",
            *_c_forms(operations, "b"),
            "",
            *_c_entries(operations),
            "",
        ]
    )


# ---- Fortran -----------------------------------------------------------------


def _index(name: str) -> int:
    """Row-major position of an entry of a 4 x 4 tile, from 1."""
    return (int(name[1]) - 1) * 4 + int(name[2])


def _vectorised(body: Sequence[str], temporaries: Sequence[str]) -> list[str]:
    """A loop over tiles: the compiler makes vectors of its straight-line body."""
    lines, names = [], list(temporaries)
    while names:
        row, names = names[:16], names[16:]
        lines.append(f"real(wp) :: {', '.join(row)}")
    return [*lines, "do t = 1, tiles", *(f"   {line}" for line in body), "end do"]


def _forms(operations: Sequence[Operation], matrix: str) -> list[str]:
    """The forms of A or of B, each stored where its product will read it."""
    side = 2 if matrix == "a" else 3
    stored = {o[side]: int(o.target[1:]) for o in operations if o.operator == "*"}
    needed = set(stored)
    for o in reversed(operations):
        if o.operator != "*" and o.target in needed:
            needed |= {o.left, o.right}
    names = {f"{matrix}{i}{j}": f"{matrix}{i}{j}" for i in range(1, 5) for j in range(1, 5)}
    body = [f"{name} = {matrix}(t, {_index(name)})" for name in names]
    temporaries = list(names)
    for o in operations:
        if o.operator == "*":
            body.append(f"f(t, {o.target[1:]}) = {names[o[side]]}")
        elif o.target in needed:
            names[o.target] = f"s{len(names) - 15}"
            temporaries.append(names[o.target])
            body.append(f"{names[o.target]} = {names[o.left]} {o.operator} {names[o.right]}")
    return _vectorised(body, temporaries)


def _entries(operations: Sequence[Operation]) -> list[str]:
    names = {o.target: f"m(t, {o.target[1:]})" for o in operations if o.operator == "*"}
    body: list[str] = []
    temporaries: list[str] = []
    for o in operations:
        if o.operator != "*" and o.left in names and o.right in names:
            if o.target[0] == "c":
                target = f"c(t, {_index(o.target)})"
            else:
                target = names[o.target] = f"s{len(temporaries) + 1}"
                temporaries.append(target)
            body.append(f"{target} = {names[o.left]} {o.operator} {names[o.right]}")
    return _vectorised(body, temporaries)


def _written(form: Form, matrix: str) -> str:
    text = ""
    for (row, column), x in sorted(form.items()):
        sign = "-" if x.re < 0 else "+"
        text += f" {sign} {matrix}{row}{column}" if text else f"{'-' if x.re < 0 else ''}{matrix}{row}{column}"
    return f"({text})" if len(form) > 1 else text


def _calls(table: FactorTable) -> list[str]:
    lines = []
    for r, product in enumerate(table.products, 1):
        lines.append(f"! m{r} = {_written(product.a, 'a')} * {_written(product.b, 'b')}")
        lines.append(f"call multiply(ni, nj, nl, l(1, 1, {r}), r(1, 1, {r}), m(1, 1, {r}))")
    return lines


def dgemm() -> str:
    """dgemm_alpha.f90 with its marked regions made anew; the rest of the file is written by hand."""
    operations = _straight_line()
    regions = {
        "a_forms": _forms(operations, "a"),
        "b_forms": _forms(operations, "b"),
        "multiply_forms": _calls(_table()),
        "c_entries": _entries(operations),
    }
    lines, skipping = [], False
    for line in (ROOT / DGEMM).read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text == END:
            skipping = False
        if not skipping:
            lines.append(line)
        if text.startswith(BEGIN):
            indent = line[: line.index("!")]
            lines += [indent + made for made in regions.pop(text.removeprefix(BEGIN).strip())]
            skipping = True
    if skipping or regions:
        raise ValueError(f"{DGEMM}: marker missing: {', '.join(regions) or END}")
    return "\n".join([*lines, ""])


def sgemm(double: str) -> str:
    """The single precision routine: the double precision one in other words."""
    for old, new in SINGLE:
        double = double.replace(old, new)
    return notice("!", DGEMM) + "\n" + double


# ---- files -------------------------------------------------------------------

OUTPUTS: dict[str, Callable[[], str]] = {
    INCLUDE: c_include,
    FORMS: c_forms,
    DGEMM: dgemm,
    SGEMM: lambda: sgemm(dgemm()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the generated sources of csrc/ and fortran/.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args(arguments).check
    status = 0
    for name, make in OUTPUTS.items():
        path = ROOT / name
        old, new = path.read_text(encoding="utf-8") if path.exists() else "", make()
        if old == new:
            continue
        if check:
            status = 1
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name} (regenerated)")
            )
        else:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
