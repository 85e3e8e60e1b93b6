"""Melbourne's coldest hour of the day, ten years of days."""

from typing import ClassVar

from dlzoo.data.series import Table
from dlzoo.datamodules.series import PublishedSeries

__all__ = ["Melbourne"]

TESTS, VALIDATES = 730, 366  # days


class Melbourne(PublishedSeries):
    """Daily minimum temperatures, 1981 to 1990; two days are missing. The last 730 days, 1989 and 1990, test, the year before
    validates, and the seven before that train.

    Source: Australian Bureau of Meteorology, as kept in https://github.com/jbrownlee/Datasets. There is no published split.
    """

    file: ClassVar[str] = "daily-min-temperatures.csv"
    url: ClassVar[str] = "https://raw.githubusercontent.com/jbrownlee/Datasets/master/daily-min-temperatures.csv"
    sha256: ClassVar[str] = "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da"
    date_columns: ClassVar[tuple[str, ...]] = ("Date",)
    published: ClassVar[int] = 3_650

    def ends(self, table: Table) -> tuple[int, int, int]:
        return len(table) - TESTS - VALIDATES, len(table) - TESTS, len(table)
