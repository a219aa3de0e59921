"""Read factor tables (csrc/factors/*.txt) and prove them exactly.

A table is one algorithm for the product C = A B of small matrices: a list of products of a linear form in the
entries of A and one in those of B, each added to some entries of C. One product a line, `#` begins a comment::

    # shape: 4 4 4                                  A is 4 x 4, B is 4 x 4
    # rank: 49                                      number of products
    # ring: integers                                one of RINGS: where the coefficients live
    # source: who found it, where it was published
    # licence: of that publication
    (a11 + a31) * (b11 + b31) -> c11 + c13
    -a13 * (b11 - 1/2 b13) -> 1/4 c13               a coefficient stands before its entry
    (1/2 - 1/2i) a11 * b12 -> i c11 - 1/2i c12      1/2i is i/2

Used by csrc/generate.py and by the tests; nothing here runs when the package does.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

RINGS = ("integers", "GF(2)", "rationals", "Gaussian rationals")


class Gaussian(NamedTuple):
    """re + im i, exactly."""

    re: Fraction
    im: Fraction = Fraction(0)

    def times(self, other: "Gaussian") -> "Gaussian":
        return Gaussian(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def plus(self, other: "Gaussian") -> "Gaussian":
        return Gaussian(self.re + other.re, self.im + other.im)

    def reduced(self, modulus: int) -> "Gaussian":
        """Modulo `modulus`, 0 meaning none."""
        return Gaussian(self.re % modulus, self.im % modulus) if modulus else self


ZERO = Gaussian(Fraction(0))
ONE = Gaussian(Fraction(1))

Entry = tuple[int, int]  # row and column, counted from 1 as in the text
Form = Mapping[Entry, Gaussian]  # a linear form: entry -> coefficient, none of them zero


@dataclass(frozen=True)
class Product:
    """(form in A) * (form in B), added to C with the coefficients of `c`."""

    a: Form
    b: Form
    c: Form


@dataclass(frozen=True)
class FactorTable:
    name: str
    shape: tuple[int, int, int]  # m, k, n: A is m x k, B is k x n
    ring: str
    source: str
    licence: str
    products: tuple[Product, ...]

    @property
    def rank(self) -> int:
        return len(self.products)

    @property
    def modulus(self) -> int:
        """2 for a table that holds modulo 2 only, else 0."""
        return 2 if self.ring == "GF(2)" else 0


class TableError(ValueError):
    """The text is not a factor table."""


_HEADER = re.compile(r"#\s*(shape|rank|ring|source|licence):\s*(.+)")
_RATIONAL = r"\d+(?:/\d+)?"
_TERM = re.compile(
    rf"""\s* (?P<sign>[+-]?) \s*
         (?: \( \s* (?P<re>-?{_RATIONAL}) \s* (?P<im_sign>[+-]) \s* (?P<im>{_RATIONAL})? i \s* \)
           | (?P<imaginary>{_RATIONAL})? (?P<i>i)
           | (?P<real>{_RATIONAL}) )? \s*
         (?P<matrix>[abc]) (?P<row>[1-9]) (?P<column>[1-9]) \s*""",
    re.VERBOSE,
)
_ENCLOSED = re.compile(r"\(((?:[^()]|\([^()]*\))*)\)")


def _coefficient(term: re.Match[str]) -> Gaussian:
    if term["re"]:
        value = Gaussian(Fraction(term["re"]), Fraction(term["im_sign"] + (term["im"] or "1")))
    elif term["i"]:
        value = Gaussian(Fraction(0), Fraction(term["imaginary"] or 1))
    else:
        value = Gaussian(Fraction(term["real"] or 1))
    return value.times(Gaussian(Fraction(-1))) if term["sign"] == "-" else value


def _form(text: str, matrix: str, size: Entry) -> Form:
    """Parse one linear form, with or without parentheses around the whole."""
    text = text.strip()
    if enclosed := _ENCLOSED.fullmatch(text):
        text = enclosed[1]
    form: dict[Entry, Gaussian] = {}
    position = 0
    while position < len(text) or not form:
        term = _TERM.match(text, position)
        if term is None or (form and not term["sign"]):
            raise TableError(f"no term of a sum: {text[position:]!r}")
        entry = int(term["row"]), int(term["column"])
        if term["matrix"] != matrix or entry[0] > size[0] or entry[1] > size[1]:
            raise TableError(f"not an entry of {matrix}: {term[0].strip()!r}")
        coefficient = _coefficient(term)
        if entry in form or coefficient == ZERO:
            raise TableError(f"repeated or zero: {term[0].strip()!r}")
        form[entry] = coefficient
        position = term.end()
    return form


def parse_text(text: str, name: str = "table") -> FactorTable:
    header: dict[str, str] = {}
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if field := _HEADER.match(line):
            header[field[1]] = field[2].strip()
        elif line.partition("#")[0].strip():
            lines.append((number, line.partition("#")[0]))
    if missing := {"shape", "rank", "ring", "source", "licence"} - header.keys():
        raise TableError(f"{name}: the header lacks {', '.join(sorted(missing))}")
    if header["ring"] not in RINGS:
        raise TableError(f"{name}: ring {header['ring']!r} is none of {', '.join(RINGS)}")
    m, k, n = (int(size) for size in header["shape"].split())
    products = []
    for number, line in lines:
        try:
            factors, arrow, c = line.partition("->")
            a, star, b = factors.partition("*")
            if not (arrow and star):
                raise TableError("not of the form a * b -> c")
            products.append(Product(_form(a, "a", (m, k)), _form(b, "b", (k, n)), _form(c, "c", (m, n))))
        except TableError as error:
            raise TableError(f"{name}, line {number}: {error}") from None
    if len(products) != int(header["rank"]):
        raise TableError(f"{name}: the header says rank {header['rank']}, there are {len(products)} products")
    return FactorTable(name, (m, k, n), header["ring"], header["source"], header["licence"], tuple(products))


def parse(path: Path | str) -> FactorTable:
    path = Path(path)
    return parse_text(path.read_text(encoding="utf-8"), path.stem)


def coefficients(table: FactorTable) -> Iterator[Gaussian]:
    for product in table.products:
        for form in (product.a, product.b, product.c):
            yield from form.values()


def in_ring(table: FactorTable) -> bool:
    """Do all coefficients lie in the ring that the header names?"""
    if table.ring == "integers":
        return all(x.im == 0 and x.re.denominator == 1 for x in coefficients(table))
    if table.ring == "GF(2)":
        return all(x == ONE for x in coefficients(table))
    return table.ring == "Gaussian rationals" or all(x.im == 0 for x in coefficients(table))


def brent_errors(table: FactorTable, modulus: int | None = None) -> dict[tuple[Entry, Entry, Entry], Gaussian]:
    """The Brent equations that fail, each with what is left over; empty for a correct table.

    The algorithm is correct for every A and B exactly when, for all entries a_ij, b_kl and c_pq, the sum over the
    products of their three coefficients is 1 where j = k, p = i, q = l and 0 elsewhere. Checked modulo the table's
    own modulus (2 for GF(2)) unless another is given; 0 is plain equality.
    """
    modulus = table.modulus if modulus is None else modulus
    sums: dict[tuple[Entry, Entry, Entry], Gaussian] = {}
    for product in table.products:
        for a, x in product.a.items():
            for b, y in product.b.items():
                xy = x.times(y)
                for c, z in product.c.items():
                    sums[a, b, c] = sums.get((a, b, c), ZERO).plus(xy.times(z))
    m, k, n = table.shape
    minus_one = Gaussian(Fraction(-1))
    for i in range(1, m + 1):
        for j in range(1, k + 1):
            for q in range(1, n + 1):
                wanted = (i, j), (j, q), (i, q)
                sums[wanted] = sums.get(wanted, ZERO).plus(minus_one)
    return {where: rest for where, left in sums.items() if (rest := left.reduced(modulus)) != ZERO}
