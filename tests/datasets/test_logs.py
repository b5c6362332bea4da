"""Event logs: the same rows as the reference's, whatever shape the files have."""

import gzip
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from multistage.datasets.rees46.label import EVENT_COLUMNS, split_category
from multistage.datasets.rees46.logs import find_files, read_logs
from multistage.datasets.rees46.quarantine import parse_block
from multistage.datasets.splits import make_split, split_by_time, time_bounds
from multistage.errors import CourseError
from tests.datasets import reference

HEADER = ",".join(EVENT_COLUMNS)
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "rees46"


def row(time="2019-10-01 10:00:00 UTC", kind="cart", product=1, user=1, session="s", **other):
    fields = {"category_id": 7, "category_code": "a.b.c", "brand": "bella", "price": 9.5} | other
    fields |= {"event_time": time, "event_type": kind, "product_id": product, "user_id": user}
    fields["user_session"] = session
    return ",".join(str(fields[c]) for c in EVENT_COLUMNS)


def write(file, rows, header=HEADER):
    text = "\n".join([header, *rows]) + "\n"
    (gzip.open if file.suffix == ".gz" else open)(file, "wb").write(text.encode())
    return file


def labelled(files, tmp_path, **options):
    return read_logs([Path(f) for f in files], tmp_path, **options)


def sums_agree(report):
    outcomes = sum(report["quarantined"].values()) + report["views"] + report["repeated"]
    steps = report["purchases_without_cart"] + report["same_session"] + report["labelled"]
    return report["read"] == outcomes + steps


def assert_same(files, tmp_path, **options):
    """Both ways give the same interactions and refuse the same lines."""
    found = labelled(files, tmp_path, **options)
    good, bad = [], []
    for file in files:
        some, other = reference.read(file)
        good += some
        bad += [(Path(file).name, line, reason) for line, reason in other]
    expected = reference.label(good)
    pd.testing.assert_frame_equal(
        reference.canonical(split_category(found.rows)), reference.frame(expected)
    )
    assert sorted((Path(f).name, line, why) for f, line, why, _ in found.quarantine) == sorted(bad)
    assert sums_agree(found.report)
    assert not list(tmp_path.glob(".logs-*"))
    return found, expected


def test_what_lies_below_the_third_level_stays_in_it(tmp_path):
    codes = {1: "a.b.c.d", 2: "a.b.c", 3: "a.b", 4: ""}
    rows = [row(product=p, kind="cart", category_code=code) for p, code in codes.items()]
    found, _ = assert_same([write(tmp_path / "log.csv", rows)], tmp_path)
    split = split_category(found.rows).set_index("product_id").sort_index()
    assert split["cat_2"].isna().tolist() == [False, False, True, True]
    assert split["cat_2"].tolist()[:2] == ["c.d", "c"]


def test_labels_by_session(tmp_path):
    rows = [
        row(product=1, kind="cart"),
        row("2019-10-01 10:05:00 UTC", "purchase", product=1),
        row(product=2, kind="cart"),
        row("2019-10-01 11:00:00 UTC", "purchase", product=2, session="another"),
        row(product=3, kind="view"),
    ]
    found, _ = assert_same([write(tmp_path / "a.csv", rows)], tmp_path)
    assert found.rows[["product_id", "target"]].values.tolist() == [[1, 1], [2, 0]]
    assert found.rows["timestamp"][0] == pd.Timestamp("2019-10-01 10:05:00", tz="UTC")
    assert found.report["purchases_without_cart"] == 1


def test_a_session_may_span_blocks_files_and_midnight(tmp_path):
    one = write(tmp_path / "1.csv", [row("2019-10-31 23:59:50 UTC", product=p) for p in range(9)])
    two = [row("2019-11-01 00:00:20+00:00", "purchase", product=p) for p in range(9)]
    two = write(tmp_path / "2.csv.gz", two)
    found, _ = assert_same([two, one], tmp_path, task_bytes=100)
    assert found.rows["target"].tolist() == [1] * 9


def test_ids_of_64_bits_and_sessions_that_are_no_uuid(tmp_path):
    big = 2**63 - 1
    file = write(tmp_path / "a.csv", [row(user=big, product=big - 1, session="PZu2 caZ")])
    found, _ = assert_same([file], tmp_path)
    assert found.rows.loc[0, ["user_id", "product_id"]].tolist() == [big, big - 1]


def test_exact_repeats_are_removed_and_counted(tmp_path):
    file = write(tmp_path / "a.csv", [row(), row(), row(price=8.0)])
    found, _ = assert_same([file], tmp_path)
    assert found.report["repeated"] == 1
    assert found.report["same_session"] == 1


BAD = {
    "short line": "2019-10-01 10:00:00 UTC,cart,1",
    "long line": row() + ",more",
    "bad event_time": row("2019-02-30 10:00:00 UTC"),
    "unknown event_type": row(kind="wish"),
    "missing product_id": row(product=""),
    "missing user_id": row(user=""),
    "bad user_id": row(user=2**63),
    "missing user_session": row(session=""),
    "bad price": row(price="inf"),
    "negative price": row(price="-0.01"),
    "bad quotes": 'a\r"b",c',
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_quarantined_with_line_and_reason(tmp_path, reason):
    rows = [row(product=p) for p in range(1, 20)]
    file = write(tmp_path / "a.csv", [*rows[:6], "", BAD[reason], *rows[6:]])
    found, _ = assert_same([file], tmp_path, limit=0.1, task_bytes=300)
    assert found.quarantine == [("a.csv", 9, reason, BAD[reason])]
    assert len(found.rows) == 19
    found.write_quarantine(tmp_path / "q.csv")
    assert pd.read_csv(tmp_path / "q.csv").loc[0, "line"] == 9


STRANGE = {
    "time": (
        "",
        "2019-10-01T10:00:00 UTC",
        "2019-10-01 10:00:00 UTC ",
        "2019-10-01 10:00:00+00:00x",
        "2019-10-01 10:00    UTC",
        "2019-10-01 10:00+00 UTC",
        "2019-10-01 24:00:00 UTC",
        "2019-10-01 10:00:00",
        "1969-12-31 23:59:59 UTC",
        "9999-12-31 23:59:59 UTC",
    ),
    "kind": ("", " cart", "Cart", "cart\0"),
    "product": ("", " 1", "1 ", "0x1F", "+1", "-0", "01", "0" * 30 + "1", 2**63, "\uff11", "1.0"),
    "user": (" 1", "0x10", -1, "1e3", 2**63 - 1),
    "price": ("", " 1", "\t1", "1.", ".5", "+1", "-0", "1e400", "Inf", "nan", "1_0", "\uff11"),
    "session": ("", " ", "NULL"),
    "brand": ("", "NA", " x", "a\rb"),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in STRANGE for value in STRANGE[field]]
)
def test_a_row_is_judged_alike_alone_and_beside_a_bad_one(field, value):
    """Alone it meets pyarrow's parser, beside a bad row the one that looks for reasons."""
    text, header = row(**{field: value}), EVENT_COLUMNS
    alone = parse_block(f"{text}\n".encode(), header, "a.csv")
    beside = parse_block(f"{text}\nshort\n".encode(), header, "a.csv")
    assert beside.kept.equals(alone.kept)
    assert beside.bad == [*alone.bad, (2, "short line", "short")]
    assert [why for _, why, _ in alone.bad] == [
        why for why in [reference.why_not(text.split(","), header)] if why
    ]


def test_of_a_column_named_twice_the_first_is_read():
    """By pyarrow's parser, and beside a bad row."""
    header, text = (*EVENT_COLUMNS, "price"), f"{row(price=9.5)},8.5\n"
    for block in (text, f"{text}short\n"):
        assert parse_block(block.encode(), header, "a.csv").kept["price"].to_pylist() == [9.5]


def test_a_short_line_is_no_line_of_bad_quotes():
    """Also where the only field that it has is in a column that is not read."""
    found = parse_block(b"short\n", ("more", *EVENT_COLUMNS), "a.csv")
    assert found.bad == [(1, "short line", "short")]


def test_a_quoted_field_of_any_length_costs_its_row_at_most(tmp_path):
    rows = [row(product=p) for p in range(1, 200)]
    long = row(product=200, brand='"' + "x" * 140_000 + '"')
    found, _ = assert_same([write(tmp_path / "a.csv", [*rows, long])], tmp_path)
    assert [(line, why) for _, line, why, _ in found.quarantine] == [(201, "bad quotes")]
    assert len(found.quarantine[0][3]) == 300


def test_old_line_ends_are_refused_in_words(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes("\r".join([HEADER, row(), row()]).encode())
    with pytest.raises(CourseError, match=r"a\.csv ends its lines with a carriage return alone"):
        labelled([file], tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, name):
    """200 MB in 200 KB of gzip, and as they are."""
    file = write(tmp_path / name, [row()])
    with gzip.open(file, "ab", 1) if file.suffix == ".gz" else file.open("ab") as stream:
        for _ in range(200):
            stream.write(b"x" * 1_000_000)
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from multistage.datasets.rees46.logs import read_logs\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_logs([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "except Exception as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, tmp_path], capture_output=True, text=True, timeout=120
    )
    said, grown = done.stdout.splitlines()
    assert said.startswith(f"{name} has a line of more than 1 MiB")
    assert int(grown) < 100  # MiB; the line is twice as long


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_file_of_another_format_is_given_up_early(tmp_path, ends):
    file = tmp_path / "a.csv"
    rows = ["2019/10/01 10:00," + "y" * 80] * 3_000
    file.write_text(ends.join([HEADER, *rows]))
    with pytest.raises(CourseError, match=r"a\.csv has another format: none of 3,000 rows") as told:
        labelled([file], tmp_path)
    assert "short line: 2019/10/01 10:00" in str(told.value)
    # With one good row before them they are bad rows like others.
    file.write_text(ends.join([HEADER, row(), *rows]))
    with pytest.raises(CourseError, match="3,000 of 3,001 rows break the contract"):
        labelled([file], tmp_path)


def test_lines_are_counted_over_the_blocks_of_a_task(tmp_path, monkeypatch):
    monkeypatch.setattr("multistage.datasets.rees46.read.BLOCK_BYTES", 300)
    rows = [row(product=p) if p % 7 else row(price=-1) for p in range(1, 30)]
    found = labelled([write(tmp_path / "a.csv", rows)], tmp_path, limit=1.0)
    assert [line for _, line, _, _ in found.quarantine] == [8, 15, 22, 29]


def test_of_many_bad_rows_the_first_are_kept_and_all_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("multistage.datasets.rees46.logs.QUARANTINE_ROWS", 5)
    rows = [row(product=p) if p % 2 else row(price=-1) for p in range(1, 21)]
    found = labelled([write(tmp_path / "a.csv", rows)], tmp_path, limit=1.0)
    assert found.report["quarantined"] == {"negative price": 10}
    assert [line for _, line, _, _ in found.quarantine] == [3, 5, 7, 9, 11]
    assert sums_agree(found.report)


@pytest.mark.parametrize("bad", [[], ["x"]], ids=["alone", "beside a bad row"])
def test_other_bytes_in_a_column_that_nobody_reads_do_no_harm(tmp_path, bad):
    rows = [row(product=p) for p in range(200)]
    file = write(tmp_path / "a.csv", rows)
    strange = row(product=200, category_id="\xe9").encode("latin-1") + b"\n"
    file.write_bytes(file.read_bytes() + strange + b"".join(f"{x}\n".encode() for x in bad))
    found = labelled([file], tmp_path)
    assert len(found.rows) == 201
    assert len(found.quarantine) == len(bad)


def test_a_bad_row_of_other_bytes_can_be_written(tmp_path):
    file = write(tmp_path / "a.csv", [row(product=p) for p in range(200)])
    file.write_bytes(file.read_bytes() + row(price=-1, category_id="\xe9").encode("latin-1"))
    found = labelled([file], tmp_path)
    found.write_quarantine(tmp_path / "q.csv")
    assert "\ufffd" in (tmp_path / "q.csv").read_text()


def test_empty_levels_of_a_category_are_null(tmp_path):
    codes = {1: "a..c", 2: ".b", 3: "a.", 4: "."}
    rows = [row(product=p, category_code=code) for p, code in codes.items()]
    found, _ = assert_same([write(tmp_path / "log.csv", rows)], tmp_path)
    split = split_category(found.rows).set_index("product_id").sort_index()
    levels = split[["cat_0", "cat_1", "cat_2"]].astype(object).where(split.notna(), None)
    assert levels.to_numpy().tolist() == [
        ["a", None, "c"],
        [None, "b", None],
        ["a", None, None],
        [None, None, None],
    ]


def test_more_bad_rows_than_allowed_are_an_error(tmp_path):
    file = write(tmp_path / "a.csv", [row(product=p) for p in range(50)] + [row(price=-1)])
    with pytest.raises(CourseError, match=r"1 of 51 rows.*negative price.*a\.csv line 52"):
        labelled([file], tmp_path)
    assert not list(tmp_path.glob(".logs-*"))


def test_a_broken_gzip_tail_costs_the_tail_only(tmp_path):
    rows = [row(product=p, session=f"{p * 7919 % 10007}") for p in range(3_000)]
    file = write(tmp_path / "a.csv.gz", rows)
    file.write_bytes(file.read_bytes()[:-200])
    found = labelled([file], tmp_path)
    assert found.report["quarantined"] == {"broken gzip tail": 1}
    assert 2_000 < len(found.rows) < 3_000
    assert found.quarantine[0][1] == len(found.rows) + 2  # the line after the last whole one
    assert sums_agree(found.report)


def test_gzip_members_one_after_another(tmp_path):
    file = tmp_path / "a.csv.gz"
    file.write_bytes(
        gzip.compress(f"{HEADER}\n{row()}\n".encode())
        + gzip.compress(f"{row(product=2)}\n".encode())
    )
    assert_same([file], tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv is empty"),
        (HEADER.replace(",price", "").encode() + b"\n", "has no column price"),
        (HEADER.encode("utf-16"), "not UTF-8"),
        (f"{HEADER}\n{row(brand='na')}\n".encode().replace(b",na,", b",n\xe9,"), "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_clear_error(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(CourseError, match=message):
        labelled([tmp_path / "a.csv"], tmp_path)
    assert not list(tmp_path.glob(".logs-*"))


def test_no_file_is_a_clear_error():
    with pytest.raises(CourseError, match="No file matches"):
        find_files("nowhere/*.csv")


def test_a_full_disk_is_a_clear_error(tmp_path):
    """A real limit on the size of written files stands in for the disk's end."""
    write(tmp_path / "a.csv", [row(product=p, session=f"s{p}") for p in range(20_000)])
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from multistage.datasets.rees46.logs import read_logs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "read_logs([Path(sys.argv[1]) / 'a.csv'], Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert "CourseError: The disk is full" in done.stderr
    assert not list(tmp_path.glob(".logs-*"))


times = st.sampled_from(
    ["2019-10-01 00:00:00", "2019-10-01 23:59:59", "2019-10-02 00:00:00", "2019-13-01 00:00:00"]
)
hostile_rows = st.builds(
    row,
    time=st.tuples(times, st.sampled_from([" UTC", "+00:00", "", "Z", " CET"])).map("".join),
    kind=st.sampled_from(["cart", "purchase", "view", "remove_from_cart", "CART", ""]),
    product=st.sampled_from([1, 2, 2**63 - 1, 2**63, -1, "", "x", "1.0", " 1"]),
    user=st.sampled_from([1, 2, 1515915625529429853, "", "+1", "²"]),
    session=st.sampled_from(["a", "b", "", "ü", " "]),
    brand=st.sampled_from(["", "bella", "NA", "null", "ñandú", '"q, r"', 'half"']),
    category_code=st.sampled_from(["", "a", "a.b", "a.b.c", "a.b.c.d", "."]),
    price=st.sampled_from([0, 1.5, "", "-0", -1, "nan", "inf", "1e3", "1,5", "1_0"]),
)
good_rows = st.builds(
    row,
    time=st.sampled_from(["2019-10-01 00:00:00 UTC", "2019-10-01 00:00:01+00:00"]),
    kind=st.sampled_from(["cart", "purchase"]),
    product=st.integers(1, 2),
    user=st.integers(1, 2),
    session=st.sampled_from(["a", "b"]),
    brand=st.sampled_from(["", "bella", "corda"]),
    price=st.sampled_from([1, 2]),
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    files=st.lists(
        st.lists(st.one_of(good_rows, hostile_rows), max_size=12), min_size=1, max_size=3
    ),
    block=st.integers(1, 400),
    ends=st.sampled_from(["\n", "\r\n"]),
    compressed=st.booleans(),
    partition=st.sampled_from([1_000, 1 << 20]),
)
def test_any_log_gives_the_reference_rows(tmp_path, files, block, ends, compressed, partition):
    paths = []
    for i, rows in enumerate(files):
        paths.append(tmp_path / f"{i}.csv{'.gz' if compressed else ''}")
        text = ends.join([HEADER, *rows])
        (gzip.open if compressed else open)(paths[-1], "wb").write(text.encode())
    assert_same(paths, tmp_path, limit=1.0, task_bytes=block, partition_bytes=partition)


@pytest.mark.parametrize("brands", [(100, 100), (100, 300)])
def test_partitions_may_know_different_brands(tmp_path, brands):
    """Codes of 8 bits do for each partition's brands alone, but not for all of them."""
    rows = [
        row(product=p, user=user, session=f"{user}", brand=f"b{user} {p}")
        for user, count in enumerate(brands)
        for p in range(count)
    ]
    file = write(tmp_path / "a.csv", rows)
    found, _ = assert_same([file], tmp_path, partition_bytes=file.stat().st_size // 2)
    assert found.rows["brand"].nunique() == sum(brands)
    codes = {name: found.rows[name].cat.codes.dtype for name in ("user_id", "brand")}
    assert codes == {"user_id": "int8", "brand": "int16"}


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared holds no real REES46 rows here")
@pytest.mark.parametrize("name", ["2019-Oct-first-hours.csv", "electronics-duplicated-rows.csv"])
def test_real_rows(tmp_path, name):
    found, expected = assert_same([REAL / name], tmp_path, task_bytes=100_000)
    rows = split_category(found.rows)
    valid, test = time_bounds(rows["timestamp"])
    split = make_split(rows, split_by_time(rows, valid, test), 1, 1)
    parts = reference.split(expected, valid, test, core=1)
    for table, part in zip(("train", "valid", "test"), parts, strict=True):
        pd.testing.assert_frame_equal(
            reference.canonical(split.tables[table]), reference.frame(part)
        )


def imported(module):
    return module in sys.modules


@contextmanager
def cluster(tmp_path):
    """A scheduler and two worker processes, started as one would on a cluster."""
    address = tmp_path / "scheduler.json"
    options = ["--scheduler-file", str(address), "--no-dashboard"]
    started = []
    try:
        for module in ("dask_scheduler", "dask_worker", "dask_worker"):
            extra = ["--nthreads", "1"] if module == "dask_worker" else ["--host", "127.0.0.1"]
            port = ["--port", "0"] if module == "dask_scheduler" else []
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.{module}", *options, *extra, *port],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=Path(__file__).parents[2],
                )
            )
        until = time.monotonic() + 60
        while not address.exists() and time.monotonic() < until:
            time.sleep(0.2)
        yield json.loads(address.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(20)


@pytest.mark.real
def test_two_workers_of_a_separate_scheduler_give_the_same_rows(tmp_path):
    rows = [row(product=p, user=p % 50, session=f"s{p % 70}") for p in range(400)]
    rows += [row(kind="purchase", product=p, user=p % 50, session=f"s{p % 70}") for p in range(90)]
    files = [write(tmp_path / f"{i}.csv", rows[i::3]) for i in range(3)]
    here = labelled(files, tmp_path, task_bytes=2_000)
    with cluster(tmp_path) as address:
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            there = labelled(files, tmp_path, task_bytes=2_000, scheduler=address)
            worked = client.run(imported, "multistage.datasets.rees46.logs")
    assert len(worked) == 2
    assert any(worked.values())
    pd.testing.assert_frame_equal(here.rows, there.rows)
    assert here.report == there.report


@pytest.mark.real
def test_no_scheduler_is_a_clear_error(tmp_path):
    with pytest.raises(CourseError, match="No Dask scheduler answers"):
        labelled([write(tmp_path / "a.csv", [row()])], tmp_path, scheduler="tcp://127.0.0.1:9")
