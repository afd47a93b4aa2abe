"""Files become tables of their own columns, whatever they are written in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.readers import find_files, natural_key, read_source
from ingestion.source import FileOptions
from validation.batch import BatchStoppedError

ROWS = [{"user": "u1", "price": "1.50"}, {"user": "u2", "price": None}, {"user": "ü,3", "price": "x\ny"}]


def write(path: Path, rows: list[dict[str, str | None]] = ROWS) -> Path:
    if ".parquet" in path.name:
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if ".csv" in path.name:
        cells = [[f'"{value}"' if value is not None else "" for value in row.values()] for row in rows]
        text = "\n".join(",".join(line) for line in [list(rows[0]), *cells]) + "\n"
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "a.json", "a.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    """CSV, JSON lines and Parquet, compressed or not, hold the same values and row numbers."""
    source = read_source(write(tmp_path / name), required=["price", "user"])
    assert source.table.select(["user", "price"]).to_pylist() == ROWS
    assert source.rows.tolist() == [1, 2, 3]


def test_a_csv_row_of_too_few_values_keeps_its_number(tmp_path: Path) -> None:
    """A line that cannot be split is handed back with its row number and text; the numbers of the others stay."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfuser,price\nu1,"1\n2"\nu2\nu3,3\n')
    source = read_source(path, required=["user", "price"])
    assert source.table["user"].to_pylist() == ["u1", "u3"]
    assert source.rows.tolist() == [1, 3]
    assert [(one.row, one.text) for one in source.unreadable] == [(2, "u2")]
    assert source.rows_in == 3


def test_an_unclosed_quote_loses_no_row(tmp_path: Path) -> None:
    """Lines that a quote without its partner has swallowed are unreadable rows, each with its number."""
    path = tmp_path / "a.csv"
    path.write_text('user,price\nu1,1\nu2\n"u3,3\nu4,4\n')
    source = read_source(path, required=["user", "price"])
    assert (source.rows.tolist(), [one.row for one in source.unreadable]) == ([1], [2, 3, 4])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path, name: str) -> None:
    """A row that is not UTF-8 is unreadable; `encoding` reads files that are written otherwise."""
    path = tmp_path / name
    rows = (
        ["user,price", "u1,1", "é,2", "u3,3"] if name == "a.csv" else ['{"user":"u1"}', '{"user":"é"}', '{"user":"u3"}']
    )
    path.write_bytes("\n".join(rows).encode("latin1"))
    source = read_source(path, required=["user"])
    assert (source.rows.tolist(), [one.row for one in source.unreadable]) == ([1, 3], [2])
    source = read_source(path, required=["user"], options=FileOptions(encoding="latin1"))
    assert source.table["user"].to_pylist() == ["u1", "é", "u3"]


def test_numbers_of_broken_csv_rows_hold_across_blocks(tmp_path: Path) -> None:
    """Row numbers count through the whole file, not through Arrow's blocks of a megabyte."""
    path = tmp_path / "a.csv"
    path.write_text(
        "user,price\n" + "".join("broken\n" if n % 50_000 == 0 else f"u{n},{n}\n" for n in range(1, 200_001))
    )
    source = read_source(path, required=["user", "price"])
    assert [one.row for one in source.unreadable] == [50_000, 100_000, 150_000, 200_000]
    assert source.table["price"].to_pylist() == [str(row) for row in source.rows]


def test_a_csv_without_header_takes_the_names_of_the_mapping(tmp_path: Path) -> None:
    """With `names`, the first line of a headerless file is a row; a file with a header is read by it."""
    path = tmp_path / "a.csv"
    options = FileOptions(names=("user", "price"))
    path.write_text("u1,5\nu2,6\n")
    assert read_source(path, required=["price"], options=options).table["price"].to_pylist() == ["5", "6"]
    path.write_text("price,user\n5,u1\n")
    assert read_source(path, required=["price"], options=options).table["price"].to_pylist() == ["5"]


def test_a_broken_json_line_keeps_its_number(tmp_path: Path) -> None:
    """Lines that are no JSON object are handed back; empty lines count but are nothing."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": {"id": 7}}\n\n{"user": \n[1]\n{"user": {"id": "u9"}, "price": 1.25}\n')
    source = read_source(path, required=["/user/id"], optional=["price"])
    assert source.table.to_pylist() == [{"/user/id": "7", "price": None}, {"/user/id": "u9", "price": "1.25"}]
    assert source.rows.tolist() == [1, 5]
    assert [one.row for one in source.unreadable] == [3, 4]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_column_stops_the_batch(tmp_path: Path, name: str) -> None:
    """A required column that no row has stops the file and is named; an optional one is left out."""
    path = write(tmp_path / name)
    with pytest.raises(BatchStoppedError) as error:
        read_source(path, required=["user", "amount"])
    assert [(stop.rule, stop.subject) for stop in error.value.stops] == [("column_missing", "amount")]
    assert read_source(path, required=["user"], optional=["amount"]).table.column_names == ["user"]


def test_a_json_key_that_is_always_null_is_no_missing_column(tmp_path: Path) -> None:
    """Null is a value that is absent; a key that no line names is a missing column."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": "u", "price": null}\n')
    assert read_source(path, required=["user", "price"]).table["price"].to_pylist() == [None]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_a_broken_file_stops_the_batch(tmp_path: Path, name: str) -> None:
    """A file cut short is a bad batch, not a crash."""
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BatchStoppedError) as error:
        read_source(path, required=["user"])
    assert error.value.stops[0].rule == "unreadable_file"


def test_a_json_array_is_told_from_json_lines(tmp_path: Path) -> None:
    """An array in one piece is refused with the command that makes lines of it."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS))
    with pytest.raises(BatchStoppedError) as error:
        read_source(path, required=["user"])
    assert "jq" in error.value.stops[0].remedy


def test_a_folder_gives_its_data_files_in_natural_order(tmp_path: Path) -> None:
    """Only data files are found, day 2 before day 10, below any folder; notes and documents beside them are not."""
    for name in ("day-10.parquet", "day-2.parquet", "more/a.parquet", ".hidden.parquet", "_tmp/b.parquet", "b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name)
    (tmp_path / "SOURCE.md").write_text("notes")
    (tmp_path / "README.txt").write_text("notes")
    (tmp_path / "manifest.json").write_text('{\n "files": 3\n}\n')
    found = [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)]
    assert found == ["b.jsonl", "day-2.parquet", "day-10.parquet", "more/a.parquet"]
    assert [path.name for path in find_files(tmp_path, include=["more/*"])] == ["a.parquet"]
    assert "b.jsonl" not in [path.name for path in find_files(tmp_path, exclude=["*.jsonl"])]


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    """Nothing to read is the user's mistake and names the path."""
    with pytest.raises(ValueError, match=r"no data file in it.*parquet"):
        find_files(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        find_files(tmp_path / "nowhere")


def test_natural_order() -> None:
    """Numbers inside names are compared as numbers."""
    assert sorted(["a10", "a9", "b1", "a9b"], key=natural_key) == ["a9", "a9b", "a10", "b1"]
