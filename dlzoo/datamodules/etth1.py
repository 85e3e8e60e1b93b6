"""ETTh1: two years of hours of an electricity transformer, six loads and the temperature of its oil."""

from typing import ClassVar

from dlzoo.data.series import Table
from dlzoo.datamodules.series import PublishedSeries

__all__ = ["ETTh1"]

MONTH = 30 * 24  # rows


class ETTh1(PublishedSeries):
    """The first twelve months of 30 days train, the next four validate, and four more test, as in the paper; what comes after
    is not used. As there, too, windows of the later parts see the end of the part before.

    Source: Zhou et al. 2021, Informer, https://arxiv.org/abs/2012.07436, section 5.1; https://github.com/zhouhaoyi/ETDataset.
    """

    file: ClassVar[str] = "ETTh1.csv"
    url: ClassVar[str] = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
    sha256: ClassVar[str] = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
    date_columns: ClassVar[tuple[str, ...]] = ("date",)
    published: ClassVar[int] = 17_420

    def ends(self, table: Table) -> tuple[int, int, int]:
        return 12 * MONTH, 16 * MONTH, 20 * MONTH
