"""Places of values on an axis: in order, one for each; and how shares of refreshes are shown."""

import pytest
from matplotlib.figure import Figure

from augloader.plot.places import ascending, of_refreshes


def test_places_ascend_and_are_one_for_each() -> None:
    assert ascending("epochs", (0, 2, 5), 3, "Keep them.") == [0, 2, 5]
    for given in ([0, 2], [0, 2, 2], [3, 2, 1]):
        with pytest.raises(ValueError, match="epochs must be 3 ascending ones, one a pass, got"):
            ascending("epochs", given, 3, "Keep them.", ", one a pass")


@pytest.mark.parametrize(("counted", "what"), [(True, "refresh"), (False, "epoch of the refresh")])
def test_refreshes_are_counted_or_have_epochs(counted: bool, what: str) -> None:
    axes = Figure().subplots()
    axes.plot([0, 1], [0.2, 0.4], label="share")
    of_refreshes(axes, "a title", counted)
    assert (axes.get_xlabel(), axes.get_title()) == (what, "a title")
    assert axes.get_ylim()[0] <= 0
    assert axes.get_ylim()[1] >= 1
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["share"]
