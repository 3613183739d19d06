"""The report: one HTML file of every result, and an explorer of heads over time, that needs no network."""

from probe.report.page import write_report

__all__ = ["write_report"]
