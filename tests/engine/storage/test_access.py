from __future__ import annotations

import json

import pytest

from inferay.engine.storage import Access, Place
from inferay.errors import InvalidInput

LAKE = Place("s3://lake", "http://one:9000", "eu", "id", "geheim", "auch-geheim")
DEEP = Place("s3://lake/deep", "http://two:9000", "", "id2", "geheim2")


def test_the_longest_prefix_wins() -> None:
    access = Access((LAKE, DEEP))
    assert access.place("s3://lake/deep/x") == DEEP
    assert access.place("s3://lake/deeper/x") == LAKE
    assert access.place("s3://lake") == LAKE


def test_a_uri_without_a_place_is_left_to_the_environment() -> None:
    place = Access((LAKE,)).place("s3://lakes/x")
    assert (place.endpoint_url, place.access_key_id) == ("", "")


def test_a_job_gets_the_access_that_it_needs_and_no_more() -> None:
    assert Access((LAKE, DEEP), True).only(["s3://lake/deep/x"]) == Access((DEEP,), True)
    assert Access((LAKE, DEEP)).only(["/local", "s3://other/x"]) == Access()


@pytest.mark.parametrize("write", [str, repr])
def test_it_never_shows_a_secret(write: object) -> None:
    assert "geheim" not in write(Access((LAKE, DEEP)))   # type: ignore[operator]


def test_it_comes_back_from_json_as_it_was() -> None:
    access = Access((LAKE, DEEP), True)
    assert Access.from_dict(json.loads(json.dumps(access.to_dict()))) == access


def test_what_is_malformed_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        Access.from_dict({"places": [{"prefix": "s3://x", "geheim": 1}]})
    assert "geheim" not in str(caught.value)
