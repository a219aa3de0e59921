"""The 4x4 algorithms, exactly: factor tables satisfy Brent's equations, generated code computes what its table says."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "csrc"))  # build-time modules, no part of the package

import factor_tables  # noqa: E402
import generate  # noqa: E402
from factor_tables import FactorTable, Gaussian, Product, TableError, brent_errors, in_ring, parse, parse_text  # noqa: E402

RANKS = {"alphatensor49": 49, "alphatensor47_gf2": 47, "alphaevolve48_complex": 48, "dps48": 48, "dps48_accurate": 48}
TABLES = {name: parse(ROOT / "csrc" / "factors" / f"{name}.txt") for name in RANKS}
each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())

SMALL = """\
# shape: 1 2 1
# rank: 2
# ring: Gaussian rationals
# source: this test
# licence: none
"""


def test_every_table_is_tested() -> None:
    assert {path.stem for path in (ROOT / "csrc" / "factors").glob("*.txt")} == RANKS.keys()


@each_table
def test_shape_rank_ring_and_source(table: FactorTable) -> None:
    assert table.shape == (4, 4, 4)
    assert table.rank == RANKS[table.name]
    assert in_ring(table)
    assert table.source
    assert table.licence in {"CC BY 4.0", "CeCILL-B"}


@each_table
def test_brent_equations(table: FactorTable) -> None:
    assert brent_errors(table) == {}


def with_coefficient(table: FactorTable, r: int, letter: str, index: int, change: Gaussian) -> FactorTable:
    """The table with `change` added to one coefficient."""
    forms = {name: dict(getattr(table.products[r], name)) for name in "abc"}
    entry = list(forms[letter])[index]
    forms[letter][entry] = forms[letter][entry].plus(change)
    products = list(table.products)
    products[r] = Product(**forms)
    return dataclasses.replace(table, products=tuple(products))


@each_table
@pytest.mark.parametrize("letter", "abc")
@pytest.mark.parametrize("r", [0, 23, 46])
def test_one_wrong_coefficient_is_found(table: FactorTable, r: int, letter: str) -> None:
    assert brent_errors(with_coefficient(table, r, letter, 0, factor_tables.ONE))


@each_table
def test_a_missing_product_is_found(table: FactorTable) -> None:
    assert brent_errors(dataclasses.replace(table, products=table.products[1:]))


def test_the_table_modulo_2_is_wrong_over_the_integers() -> None:
    assert brent_errors(TABLES["alphatensor47_gf2"], modulus=0)


def test_the_integer_table_also_holds_modulo_2() -> None:
    assert brent_errors(TABLES["alphatensor49"], modulus=2) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a11", (1, 0)),
        ("-a11", (-1, 0)),
        ("1/4 a11", ("1/4", 0)),
        ("i a11", (0, 1)),
        ("-1/2i a11", (0, "-1/2")),
        ("(1/2 - 1/2i) a11", ("1/2", "-1/2")),
        ("-(1/2 + i) a11", ("-1/2", -1)),
        ("(3 a11)", (3, 0)),
    ],
)
def test_coefficients_are_read(text: str, value: tuple[str | int, str | int]) -> None:
    table = parse_text(f"{SMALL}{text} * b11 -> c11\na12 * b21 -> c11\n")
    assert table.products[0].a == {(1, 1): Gaussian(Fraction(value[0]), Fraction(value[1]))}


def test_a_sum_over_two_entries() -> None:
    table = parse_text(f"{SMALL}a11 * b11 -> c11   # a comment\n\na12 * b21 -> c11\n")
    assert brent_errors(table) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a11 * b11", "not of the form"),
        ("a11 -> c11", "not of the form"),
        ("a13 * b11 -> c11", "not an entry of a"),
        ("b11 * b11 -> c11", "not an entry of a"),
        ("a11 * b11 -> c12", "not an entry of c"),
        ("(a11 a12) * b11 -> c11", "no term of a sum"),
        ("(a11 + a11) * b11 -> c11", "repeated or zero"),
        ("0 a11 * b11 -> c11", "repeated or zero"),
        ("1.5 a11 * b11 -> c11", "no term of a sum"),
        (" * b11 -> c11", "no term of a sum"),
    ],
)
def test_what_is_no_product_is_refused(line: str, message: str) -> None:
    with pytest.raises(TableError, match=f"line 6: {message}"):
        parse_text(f"{SMALL}{line}\na12 * b21 -> c11\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# rank: 2", "# rank: 3", "rank 3, there are 2"),
        ("# licence: none\n", "", "lacks licence"),
        ("Gaussian rationals", "octonions", "ring 'octonions'"),
    ],
)
def test_a_wrong_header_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        parse_text(f"{SMALL}a11 * b11 -> c11\na12 * b21 -> c11\n".replace(old, new))


# ---- generated code ---------------------------------------------------------------


def test_generated_files_are_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, "csrc/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", generate.OUTPUTS)
def test_a_changed_generated_file_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for output in [generate.TABLE, *generate.OUTPUTS]:
        (tmp_path / output).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / output).write_text((ROOT / output).read_text(encoding="utf-8"), encoding="utf-8")
    changed = tmp_path / name
    text = changed.read_text(encoding="utf-8")
    line = next(line for line in reversed(text.splitlines()) if " + " in line or "ADD" in line)
    if name == generate.DGEMM:  # only its marked regions are generated
        line = next(line for line in text.splitlines() if line.strip().startswith("s1 = "))
    changed.write_text(text.replace(line, line + " ", 1), encoding="utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    before = changed.read_text(encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert changed.read_text(encoding="utf-8") == before
    assert generate.main([]) == 0
    assert changed.read_text(encoding="utf-8") == text
    assert generate.main(["--check"]) == 0


def test_straight_line_code_is_the_algorithm() -> None:
    """Run the generated operations on polynomials: each entry of C must come out as sums of a_ik b_kj."""
    table = TABLES["alphatensor49"]
    values: dict[str, dict[tuple[str, ...], int]] = {
        f"{matrix}{i}{j}": {(f"{matrix}{i}{j}",): 1} for matrix in "ab" for i in range(1, 5) for j in range(1, 5)
    }
    operations = generate.straight_line(table)
    for target, operator, left, right in operations:
        assert target not in values, "each value is defined once"
        result: dict[tuple[str, ...], int] = {}
        if operator == "*":
            for x, p in values[left].items():
                for y, q in values[right].items():
                    result[x + y] = result.get(x + y, 0) + p * q
        else:
            result.update(values[left])
            for y, q in values[right].items():
                result[y] = result.get(y, 0) + (q if operator == "+" else -q)
        values[target] = {monomial: x for monomial, x in result.items() if x}
    for i in range(1, 5):
        for j in range(1, 5):
            assert values[f"c{i}{j}"] == {(f"a{i}{k}", f"b{k}{j}"): 1 for k in range(1, 5)}
    assert sum(operation.operator == "*" for operation in operations) == 49
    assert sum(operation.operator != "*" for operation in operations) <= 169
