"""A scrape of `/metrics`, read as Prometheus reads it."""

from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape said."""

    families: tuple[Metric, ...]

    @classmethod
    def read(cls, text: str) -> "Scrape":
        """Parse either format; raises ValueError."""
        is_open = text.endswith("# EOF\n")
        if is_open:
            return cls(tuple(parse_open_metrics(text)))  # type: ignore[no-untyped-call] # it has none
        return cls(tuple(parse_text(text)))

    @property
    def names(self) -> set[str]:
        """All families that are there, with rows or without."""
        return {family.name for family in self.families}

    def rows(self, name: str) -> dict[tuple[str, ...], float]:
        """All samples of a name, by their labels' values in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name
        }

    def value(self, name: str, *labels: str) -> float:
        """The one sample of a name with these labels' values."""
        return self.rows(name)[labels]

    def labels(self) -> set[tuple[str, str]]:
        """All labels that there are."""
        return {
            pair
            for family in self.families
            for sample in family.samples
            for pair in sample.labels.items()
        }
