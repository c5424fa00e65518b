"""Result files: the schema, JSON and CSV, and what is no result."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpcore.bench.result import FORMAT, load_result, save_csv, save_result, schema
from bpcore.errors import DataError, ModelFileError

jsonschema = pytest.importorskip("jsonschema")

Run = Callable[..., dict[str, Any]]


def test_the_schema_is_one_and_refuses_what_it_should(in_process: Run) -> None:
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    judge = jsonschema.Draft202012Validator(found)
    result = in_process("numpy", batch_sizes=(4,), parts=False)
    judge.validate(result)
    row = result["networks"][0]["cells"][0]["contenders"]["numpy"]
    for change in ({"status": "fine"}, {"extra": 1}, {"gflops": "many"}):
        kept = dict(row)
        row.update(change)
        assert not judge.is_valid(result), change
        row.clear()
        row.update(kept)
    del row["us_per_step"]
    assert not judge.is_valid(result), "who is ranked has a time"


def test_a_result_comes_back(in_process: Run, tmp_path: Path) -> None:
    result = in_process("numpy", "broken", batch_sizes=(1, 4))
    save_result(result, tmp_path / "a.json")
    assert load_result(tmp_path / "a.json") == json.loads(json.dumps(result))
    save_csv(result, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["batch"], row["contender"]) for row in rows] == [
        ("small", "1", "numpy"), ("small", "1", "broken"), ("small", "4", "numpy"), ("small", "4", "broken"),
    ]  # fmt: skip
    numpy = result["networks"][0]["cells"][0]["contenders"]["numpy"]
    assert float(rows[0]["us_per_step"]) == numpy["us_per_step"]["median"]
    assert rows[1]["status"] == "failed"
    assert rows[1]["us_per_step"] == ""


def test_the_operations_as_csv(in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.bench import operations

    monkeypatch.setattr(operations, "CASES", [operations.Case("total", {"m": 3, "n": 2})])
    save_csv(in_process("numpy", ops=True), tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].startswith("operation,sizes,contender,status,us_per_step")
    assert lines[1].startswith("total,m=3 n=2,numpy,")


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match=r"cannot read .*a\.json: No such file"):
        load_result(path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json is no JSON"):
        load_result(path)
    path.write_text('{"format": "other"}')
    with pytest.raises(DataError, match=f"its format is 'other', not '{FORMAT}'"):
        load_result(path)
    with pytest.raises(ModelFileError, match="there is no folder"):
        save_result({}, tmp_path / "nowhere" / "a.json")
