import pytest
from prefect.utilities.names import generate_slug

from cloudops_prefect.naming import is_made_up


def test_what_prefect_makes_up_is_known_as_such():
    assert all(is_made_up(generate_slug(2)) for _ in range(1000))


@pytest.mark.parametrize("name", ["Sleek-Boxsky", "Handcrafted-Ox", "Small-Vicuña"])
def test_what_the_form_in_the_ui_proposes_is_known_as_such(name):
    assert is_made_up(name)


@pytest.mark.parametrize(
    "name",
    [
        "Small-Release",
        "Generic-fox",
        "Small-",
        "deploy-prod",
        "blue-green",
        "nightly",
        "shark",
        "red-",
        "",
    ],
)
def test_what_somebody_has_chosen_is_not(name):
    assert not is_made_up(name)
