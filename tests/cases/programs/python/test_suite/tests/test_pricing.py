import pytest

from pricing import discounted


@pytest.mark.parametrize(("percent", "expected"), [(0, 50.0), (10, 45.0), (100, 0.0)])
def test_discount(percent, expected):
    assert discounted(50, percent) == expected


def test_rejects_nonsense():
    with pytest.raises(ValueError, match="out of range"):
        discounted(50, 120)


def test_rounding():
    # Half a paisa: this one is wrong on purpose.
    assert discounted(0.125, 0) == 0.125
