"""Beijing's air: five years of hours, the fine dust at the US embassy and the weather at the airport."""

from typing import ClassVar

import numpy as np

from dlzoo.data.series import Table
from dlzoo.datamodules.series import PublishedSeries

__all__ = ["Beijing"]


class Beijing(PublishedSeries):
    """PM2.5 and weather, hourly, 2010 to 2014; 2,067 hours of dust are missing. There is no published split: here the years
    2010 to 2012 train, 2013 validates and 2014 tests.

    Source: Liang et al. 2015, Assessing Beijing's PM2.5 pollution, https://doi.org/10.1098/rspa.2015.0257, as kept in
        https://github.com/jbrownlee/Datasets.
    """

    file: ClassVar[str] = "pollution.csv"
    url: ClassVar[str] = "https://raw.githubusercontent.com/jbrownlee/Datasets/master/pollution.csv"
    sha256: ClassVar[str] = "892e9559205d16d32623135c127a3951c12e46ea1e0b3093e107ce89a9fd60e2"
    date_columns: ClassVar[tuple[str, ...]] = ("year", "month", "day", "hour")
    published: ClassVar[int] = 43_824

    def ends(self, table: Table) -> tuple[int, int, int]:
        first, second = np.searchsorted(table.dates, np.array(["2013-01-01", "2014-01-01"], dtype="datetime64[s]"))
        return int(first), int(second), len(table)
