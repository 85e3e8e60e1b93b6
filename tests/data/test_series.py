"""Series from files: what is read, what is added where rows are missing, and what is told of a file that is wrong."""

import numpy as np
import pytest

from dlzoo.data.columns import COMPASS, Columns
from dlzoo.data.series import carry, read_series, written
from dlzoo.errors import DataError

DAYS = Columns(["date"], ["t"], ["u"], {"wind": COMPASS}, ["t"])


@pytest.fixture
def write(tmp_path):
    def put(*lines, name="a.csv", encoding="utf-8"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding=encoding)
        return tmp_path / name

    return put


def test_columns_are_found_by_name_in_any_order(write):
    path = write("wind,more,u,t,date", "NE,x,1,2.5,2000-01-01", "cv,y,NA,-3e1,2000-01-02", ' SW ,z, 4 ,"",2000-01-03')
    table = read_series(path, DAYS)
    np.testing.assert_array_equal(table.values, [[2.5, 1], [-30, np.nan], [np.nan, 4]])
    assert table.texts["wind"].tolist() == ["NE", "cv", "SW"] and table.step == 86_400 and table.added == 0
    assert table.dates.astype(str).tolist() == [f"2000-01-0{day}T00:00:00" for day in (1, 2, 3)]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_separators_and_a_byte_order_mark(write, sign):
    columns = Columns(["date"], ["t"])
    path = write(f"date{sign}t", f"2000-01-01 10:00{sign}1", f"2000-01-01 11:00{sign}2", encoding="utf-8-sig")
    table = read_series(path, columns)
    assert table.values[:, 0].tolist() == [1, 2] and table.step == 3_600


def test_a_date_in_four_columns_is_written_as_it_was_read(write):
    columns = Columns(["year", "month", "day", "hour"], ["t"])
    table = read_series(write("year,month,day,hour,t", "2010,2,28,23,1", "2010,3,1,0,2"), columns)
    assert table.step == 3_600
    assert [written(date, columns, table.step) for date in table.dates] == [["2010", "2", "28", "23"], ["2010", "3", "1", "0"]]
    day = np.datetime64("2010-03-01T00:00:00", "s")
    assert written(day, DAYS, 86_400) == ["2010-03-01"] and written(day, DAYS, 3_600) == ["2010-03-01 00:00:00"]


def test_rows_that_are_left_out_are_added_as_missing(write):
    path = write("date,t,u,wind", "2000-01-01,1,1,N", "2000-01-02,2,2,N", "2000-01-05,5,5,S", "2000-01-06,6,6,S")
    table = read_series(path, DAYS)
    assert len(table) == 6 and table.added == 2
    np.testing.assert_array_equal(table.values[:, 0], [1, 2, np.nan, np.nan, 5, 6])
    assert table.texts["wind"].tolist() == ["N", "N", "", "", "S", "S"]
    assert (np.diff(table.dates) == np.timedelta64(1, "D")).all()


def test_a_step_that_is_known_is_held_to(write):
    path = write("date,t", *(f"2000-01-0{day},1" for day in (1, 3, 5)))
    assert len(read_series(path, Columns(["date"], ["t"]))) == 3
    assert len(read_series(path, Columns(["date"], ["t"]), step=86_400)) == 5


def test_missing_values_are_carried_forward():
    values = np.array([[np.nan, 1], [2, np.nan], [np.nan, np.nan], [3, 4]])
    np.testing.assert_array_equal(carry(values, np.array([7.0, 8.0])), [[7, 1], [2, 1], [2, 1], [3, 4]])


HEAD = "date,t,u,wind"


@pytest.mark.parametrize(
    ("lines", "match", "fix"),
    [
        (["date,tt,u,wind", "2000-01-01,1,1,N"], "no column 't'", "'tt'"),
        ([HEAD, "2000-01-01,1,1,N"], "1 rows", "two"),
        ([HEAD, "2000-01-01,1,1,N", "2000-01-02,1,1"], "line 3 has 3 values, and there are 4", "quotes"),
        ([HEAD, "2000-01-01,1,1,N", "2000-01-02,1,x3,N"], "line 3: u is 'x3', which is no number", "NA"),
        ([HEAD, "2000-01-01,inf,1,N", "2000-01-02,1,3,N"], "line 2: t is 'inf'", "NA"),
        ([HEAD, "2000-01-01,1,1,N", "2000-02-31,1,3,N"], "line 3: '2000-02-31' is no date", "2016-07-01"),
        ([HEAD, "2000-01-01T00:00+01:00,1,1,N", "2000-01-02,1,3,N"], "line 2: .* time zone", "same time"),
        (
            [HEAD, "2000-01-01,1,1,N", "2000-01-02,1,3,N", "2000-01-02,1,3,N"],
            "line 4: 2000-01-02 .* not come after",
            "earliest",
        ),
        (
            [HEAD, *(f"2000-01-{day},1,1,N" for day in ("01", "02", "03", "03T12:00"))],
            "line 5: .* 43,200 s",
            "between two steps",
        ),
        (
            [HEAD, *(f"2000-{day},1,1,N" for day in ("01-01", "01-02", "01-03", "02-03"))],
            "line 5: .* in steps of 86,400",
            "left out",
        ),
        ([HEAD, '"2000-01-01,1,1,N', "2000-01-02,1,3,N"], "no table of text", "UTF-8"),
    ],
    ids=["column", "short", "ragged", "number", "infinite", "date", "zone", "twice", "irregular", "sparse", "quotes"],
)
def test_what_is_wrong_is_told_with_its_line(write, lines, match, fix):
    with pytest.raises(DataError, match=match) as caught:
        read_series(write(*lines), DAYS)
    assert fix in caught.value.fix


def test_no_file_and_no_text(tmp_path, write):
    with pytest.raises(DataError, match="there is no"):
        read_series(tmp_path / "b.csv", DAYS)
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="no table of text"):
        read_series(tmp_path / "c.csv", DAYS)


def test_columns_count_what_a_network_is_shown():
    columns = Columns(["d"], ["a", "b"], ["c"], {"w": COMPASS, "s": ["sun", "rain", "fog"]}, ["a"], ["hour", "yearday"])
    assert columns.width == 2 + 1 + 2 + 3 + 1 + 4 and columns.names == ["d", "a", "b", "c", "w", "s"]
    assert Columns(**columns.as_dict()).as_dict() == columns.as_dict()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"dates": ["a", "b"]}, "one column"),
        ({"targets": []}, "name a column"),
        ({"inputs": ["t"]}, "twice: t"),
        ({"masks": ["u"]}, "among targets and inputs, got u"),
        ({"calendar": ["month"]}, "calendar must be of hour"),
        ({"texts": {"w": "north"}}, "compass or a list"),
    ],
    ids=str,
)
def test_columns_that_can_not_be_are_refused(words, match):
    with pytest.raises(ValueError, match=match):
        Columns(**{"dates": ["date"], "targets": ["t"], **words})
