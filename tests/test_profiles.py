import dataclasses

import pytest

from multistage.errors import CourseError
from multistage.profiles import PROFILES, get_profile


@pytest.mark.parametrize("name", ["ci", "laptop", "gpu"])
def test_a_profile_is_found_by_its_name_and_cannot_be_changed(name):
    profile = get_profile(name)
    assert profile.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.users = 1


def test_profiles_grow():
    sizes = [(p.users, p.products, p.requests) for p in map(get_profile, ("ci", "laptop", "gpu"))]
    assert sizes == sorted(sizes)
    assert len(PROFILES) == 3


def test_an_unknown_profile_is_named_with_those_that_exist():
    with pytest.raises(CourseError, match=r"'tpu'.*ci, laptop, gpu"):
        get_profile("tpu")
