import json

import pytest

from stac_watch.config.areas import parse_area, parse_expression
from stac_watch.config.load import load
from stac_watch.model.errors import ConfigError

TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]]]}
POINT = {"type": "Point", "coordinates": [10, 10]}


@pytest.mark.parametrize(
    ("document", "bounds"),
    [
        (TRIANGLE, (0, 0, 4, 4)),
        ({"type": "Feature", "properties": {}, "geometry": TRIANGLE}, (0, 0, 4, 4)),
        ({"type": "FeatureCollection", "features": [{"geometry": TRIANGLE}, {"geometry": POINT}]}, (0, 0, 10, 10)),
    ],
)
def test_an_area_is_read_from_every_kind_of_geojson(tmp_path, document, bounds):
    file = tmp_path / "aoi.geojson"
    file.write_text(json.dumps(document))
    assert parse_area(str(file)).geometry.bounds == bounds
    assert parse_area(document) == parse_area(str(file))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"), ("[]", "not a GeoJSON geometry"), ('{"type": "Polygon"}', "not a GeoJSON geometry"),
        ('{"type": "FeatureCollection", "features": []}', "empty"),
        (json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]}), "Self-intersection"),
        (json.dumps({"type": "Point", "coordinates": [500_000, 4_600_000]}), "not in degrees"),
    ],
)  # fmt: skip
def test_an_area_that_cannot_be_used_is_named_with_its_file(tmp_path, content, words):
    file = tmp_path / "aoi.geojson"
    file.write_text(content)
    config = tmp_path / "stac-watch.yaml"
    source = {"name": "s2", "api": "https://stac.example", "collection": "c", "filter": {"intersects": str(file)}}
    config.write_text(json.dumps({"sources": [source]}))
    with pytest.raises(ConfigError, match=words) as error:
        load(config, {})
    assert str(file) in error.value.message
    assert "filter.intersects" in error.value.message


def test_a_missing_file_is_said():
    with pytest.raises(ValueError, match=r"cannot read nowhere\.geojson"):
        parse_area("nowhere.geojson")


@pytest.mark.parametrize("given", ["a <", {"op": "=", "args": [1]}, {"nonsense": 1}, 5])
def test_an_expression_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="CQL2"):
        parse_expression(given)
