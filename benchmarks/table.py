"""Rows of the benchmarks' table."""

from dataclasses import dataclass

from tabulate import tabulate

HEADERS = ("what", "naive", "ours", "ratio", "largest difference")


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print; what does not apply is left empty."""

    what: str
    naive: str = ""
    ours: str = ""
    ratio: str = ""
    difference: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADERS`."""
        return self.what, self.naive, self.ours, self.ratio, self.difference


def table(rows: list[Row]) -> str:
    """As Markdown."""
    return tabulate([row.cells() for row in rows], HEADERS, tablefmt="pipe", disable_numparse=True)
