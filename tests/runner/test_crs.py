"""How a CRS may be spelled, and which one a tile has."""

import pytest
from geozarr_runner.source import crs
from pyproj import CRS


@pytest.mark.parametrize(
    ("tile", "code"), [("32TQM", "EPSG:32632"), ("01CCV", "EPSG:32701"), ("60MXA", "EPSG:32760"), ("33XWG", "EPSG:32633"),
                       ("32NNF", "EPSG:32632")],
)  # fmt: skip
def test_a_tile_has_the_grid_of_its_zone(tile, code):
    assert crs.of_tile(tile) == code


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (32632, "EPSG:32632"), ("32632", "EPSG:32632"), ("EPSG:32632", "EPSG:32632"), ("epsg:32632", "EPSG:32632"),
        ("urn:ogc:def:crs:EPSG::32632", "EPSG:32632"), ("http://www.opengis.net/def/crs/EPSG/0/32632", "EPSG:32632"),
        ('PROJCRS["WGS 84 / UTM zone 32N",BASEGEOGCRS["WGS 84",ID["EPSG",4326]],ID["EPSG",32632]]', "EPSG:32632"),
        ('PROJCS["x",GEOGCS["WGS 84",AUTHORITY["EPSG","4326"]]]', ""), ("WGS84 / UTM zone 32N", ""),
        (None, ""), (True, ""), ("", ""), (float("nan"), ""), (32632.0, "EPSG:32632"), ("EPSG::32632", "EPSG:32632"),
        ("urn:ogc:def:crs:EPSG:9.8.15:32632", "EPSG:32632"), ("ESRI:32632", ""), ("IAU_2015:30100", ""), ("PROJCRS[and so on", ""),
        (' "EPSG:32632" ', "EPSG:32632"), ("EPSG: 32632", "EPSG:32632"), ("urn:ogc:def:crs:ESRI::32632", ""), ("OGC:32632", ""),
    ],
)  # fmt: skip
def test_spellings_of_a_code(value, code):
    assert crs.code_of(value) == code


ID = 'ID["EPSG",32632]'


@pytest.mark.parametrize(
    ("version", "old", "new", "code"),
    [
        ("WKT2_2019", "", "", "EPSG:32632"), ("WKT2_2015", "", "", "EPSG:32632"), ("WKT1_GDAL", "", "", "EPSG:32632"),
        ("WKT1_ESRI", "", "", "EPSG:32632"),  # has no authority at all
        ("WKT2_2019", ID, f'{ID},REMARK["as published"]', "EPSG:32632"),
        ("WKT2_2019", ID, 'ID["EPSG",32632,URI["urn:ogc:def:crs:EPSG::32632"]]', "EPSG:32632"),
        ("WKT2_2019", ID, 'ID["EPSG","32632",10.1]', "EPSG:32632"), ("WKT2_2019", ID, 'ID [ "EPSG" , 32632 ]', "EPSG:32632"),
        ("WKT2_2019", ID, 'ID["ESRI",32632]', ""),
    ],
)  # fmt: skip
def test_spellings_of_a_wkt(version, old, new, code):
    assert crs.code_of(CRS.from_epsg(32632).to_wkt(version).replace(old, new)) == code
