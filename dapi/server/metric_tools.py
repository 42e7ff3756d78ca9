"""Makes Prometheus' families of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from dapi.timing.histogram import Histogram

Rows: TypeAlias = Iterable[tuple[Any, ...]]


class HistogramSample(msgspec.Struct, frozen=True):
    """A copy of a histogram."""

    bounds: tuple[float, ...]
    cumulative: list[int]
    sum: float

    @classmethod
    def of(cls, histogram: Histogram) -> HistogramSample:
        """Copy a histogram."""
        return cls(histogram.bounds, histogram.cumulative(), histogram.sum)


def known(value: float | None) -> Rows:
    """Return the row of a gauge without labels, none where its value is not known."""
    return () if value is None else [(value,)]


def gauge(name: str, text: str, labels: list[str], rows: Rows) -> Metric:
    """Return a gauge; each row has the values of the labels, and the gauge's own."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: list[str], rows: Rows) -> Metric:
    """Return a counter, which is shown with ``_total`` behind its name; rows are like those of a gauge."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def histogram(name: str, text: str, labels: list[str], rows: Rows) -> Metric:
    """Return a histogram; each row has the values of the labels, and a HistogramSample."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for *values, sample in rows:
        bounds = [*map(floatToGoString, sample.bounds), "+Inf"]
        family.add_metric(values, list(zip(bounds, sample.cumulative, strict=True)), sample.sum)
    return family


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for *values, value in rows:
        family.add_metric(values, value)
    return family
