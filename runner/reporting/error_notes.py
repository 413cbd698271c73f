"""Notes below a comparison about its sources of error: seeds that pairs share, batch order, and test images."""

from collections.abc import Iterator

from runner.analysis.records import Comparison


def has_images(comparison: Comparison) -> bool:
    """Whether a row has the interval for new seeds and new test images."""
    return any(row.difference and row.difference.over_images for row in comparison.rows)


def shared_seeds(comparison: Comparison) -> Iterator[str]:
    """Says where pairs are not independent, because they share the seed of a stream."""
    if comparison.shared_seeds:
        why = "pairs that share a seed are not independent, so there is no interval, no p and no verdict"
        yield f"The {comparison.shared_seeds}: {why} (bnbench variance measures each source)."


def over_images(comparison: Comparison) -> Iterator[str]:
    """Says what the column "over seeds and images" is."""
    if has_images(comparison):
        variance = "σ²(seed)/S + σ²(image)/I + σ²(both)/(S·I)"
        yield (
            "over seeds and images: the interval for new seeds and new test images. "
            f"The variance of the mean is {variance}, from a two-way analysis of variance; t with Satterthwaite's df. "
            "It is never narrower than the interval of the seeds. The verdict is about the seeds. Rows at an arm's "
            "best lr have no such interval."
        )


def not_varied(comparison: Comparison) -> Iterator[str]:
    """Says what is the same in all runs, so that the intervals do not show what it changes."""
    if comparison.constant.get("shuffle") is False and "seed" not in comparison.constant:
        yield "All seeds share one batch order (shuffle: false), so the interval does not cover other orders."
    on_test = comparison.metric.name.startswith("test_") or comparison.constant.get("validate_on") == "test"
    if on_test and comparison.axis and not comparison.stated and not has_images(comparison):
        yield (
            "All runs are tested on the same images, so the interval does not cover other test images "
            "(compare --over seeds,images does; it needs save_predictions: true)."
        )
