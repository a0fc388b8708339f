from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from stac_watch.config.load import load
from stac_watch.config.model import ArgoSettings, Config, LocalSettings
from stac_watch.config.values import parse_duration, parse_rate
from stac_watch.model.errors import ConfigError, Exit

SOURCE = {"name": "s2-l2a", "api": "https://stac.example", "collection": "sentinel-2-l2a"}
ARGO = {"kind": "argo", "webhook": "http://eventsource:12000/items"}


@pytest.fixture
def config_of(tmp_path):
    """Loads a configuration given as a value."""

    def _config_of(environ=None, source=None, **over) -> Config:
        path = tmp_path / "stac-watch.yaml"
        path.write_text(yaml.safe_dump({"sources": [SOURCE | (source or {})]} | over))
        return load(path, environ or {})

    return _config_of


def test_the_shortest_configuration_is_one_source(config_of):
    config = config_of()
    assert config.source("s2-l2a").collection == "sentinel-2-l2a"
    assert isinstance(config.engine, LocalSettings)
    assert config.engine.limits.max_in_flight == 2
    assert config.source("s2-l2a").hosts() == ("stac.example",)


def test_every_value_of_the_documented_example_arrives(config_of):
    config = config_of(
        ledger="sqlite:///x.db",
        source={
            "api": "https://stac.example/", "filter": {"bbox": [1, 2, 3, 4], "max_cloud_cover": 60, "max_age": "30d"},
            "poll": {"interval": "60s", "overlap": "auto", "sweep": "6h"}, "on": "restamp", "allowed_hosts": ["a.example"],
        },
        recipe={"groups": "measurements", "output": "s3://b/{collection}/{key}.zarr", "spatial_chunk": 512, "package": "none"},
        engine=ARGO | {"limits": {"max_in_flight": 5, "rate": "90/m", "attempts": 2, "confirm_after": "15m", "not_ready": ["1h"]}},
    )  # fmt: skip
    source, limits = config.source("s2-l2a"), config.engine.limits
    assert isinstance(config.engine, ArgoSettings)
    assert (source.api, source.filter.bbox, source.filter.max_age) == ("https://stac.example", (1, 2, 3, 4), timedelta(days=30))
    assert (source.poll.interval, source.poll.sweep, source.on) == (timedelta(seconds=60), timedelta(hours=6), "restamp")
    assert (limits.rate, limits.not_ready, limits.confirm_after) == (1.5, (timedelta(hours=1),), timedelta(minutes=15))
    assert (config.recipe.spatial_chunk, config.recipe.package, source.hosts()) == (512, "none", ("a.example",))


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"enigne": ARGO}, ["unknown key 'enigne'", "did you mean 'engine'"]),
        ({"source": {"filter": {"max_cloud_covr": 5}}}, ["sources.s2-l2a.filter.max_cloud_covr", "did you mean 'max_cloud_cover'"]),
        ({"engine": ARGO | {"limits": {"max_in_fligth": 5}}}, ["'engine.limits.max_in_fligth'", "did you mean 'max_in_flight'"]),
        ({"zzz": 1}, ["unknown key 'zzz'"]),
        ({"source": {"poll": {"interval": "60"}}}, ["sources.s2-l2a.poll.interval", "'60' is not a duration", "60s"]),
        ({"source": {"poll": {"interval": 60}}}, ["sources.s2-l2a.poll.interval", "60 is not a duration"]),
        ({"source": {"poll": {"interval": "1 week"}}}, ["'1 week' is not a duration"]),
        ({"source": {"poll": {"interval": "-5s"}}}, ["'-5s' is not a duration"]),
        ({"source": {"filter": {"max_age": "99999999999d"}}}, ["sources.s2-l2a.filter.max_age", "100 years"]),
        ({"source": {"poll": {"page": 0}}}, ["sources.s2-l2a.poll.page", "at least 1", "0"]),
        ({"source": {"filter": {"max_cloud_cover": 101}}}, ["max_cloud_cover", "100", "101"]),
        ({"source": {"filter": {"bbox": [1, 2, 3]}}}, ["sources.s2-l2a.filter.bbox", "too few values", "line "]),
        ({"source": {"name": "Bad Name"}}, ["sources.Bad Name.name", "'Bad Name'", "at most 31"]),
        ({"source": {"name": "engine"}}, ["sources", "'engine'", "choose another name"]),
        ({"source": {"name": "ledger"}}, ["sources", "'ledger'", "choose another name"]),
        ({"source": {"api": "stac.example"}}, ["sources.s2-l2a.api", "'stac.example' is not an http(s) URL"]),
        ({"source": {"api": "file:///etc"}}, ["is not an http(s) URL"]),
        ({"source": {"collection": "a{b}"}}, ["sources.s2-l2a.collection", "not usable as a name"]),
        ({"source": {"collection": ".."}}, ["sources.s2-l2a.collection"]),
        ({"source": {"collection": "a\u200bb"}}, ["sources.s2-l2a.collection"]),
        ({"source": {"on": "everything"}}, ["sources.s2-l2a.on", "'everything'"]),
        ({"sources": []}, ["sources"]),
        ({"sources": [SOURCE, SOURCE]}, ["two sources are named 's2-l2a'"]),
        ({"sources": [{"name": "x"}]}, ["'sources.x.api' is missing", "'sources.x.collection' is missing"]),
        ({"engine": {"kind": "slurm"}}, ["engine", "'argo', 'local'"]),
        ({"engine": "local"}, ["'engine' must hold keys and values", "(given: 'local')"]),
        ({"source": {"filter": {"tiles": "32TQM"}}}, ["'sources.s2-l2a.filter.tiles' must be a list"]),
        ({"engine": {"kind": "local", "limits": {"max_in_flight": "many"}}}, ["max_in_flight' must be a whole number"]),
        ({"web": {"port": 99999}}, ["'web.port' must be at most 65535", "(line "]),
        ({"engine": {"kind": "argo"}}, ["'engine.webhook' is missing"]),
        ({"engine": {"limits": {"rate": "1/s"}}}, ["'engine.kind' is missing", "kind: local"]),
        ({"engine": ARGO | {"limits": {"rate": 2}}}, ["engine.limits.rate", "2/s"]),
        ({"engine": ARGO | {"limits": {"rate": "0/s"}}}, ["engine.limits.rate", "'0/s' is not a rate"]),
        ({"engine": ARGO | {"limits": {"not_ready": []}}}, ["engine.limits.not_ready"]),
        ({"engine": ARGO | {"namespace": "Not_Dns"}}, ["engine.namespace", "'Not_Dns'"]),
        ({"recipe": {"output": "out/{item}.zarr"}}, ["recipe.output", "unknown field {item}", "item_id"]),
        ({"recipe": {"output": "out/{item_id"}}, ["recipe.output", "not a template"]),
        ({"recipe": {"output": "out/{item_id.__class__}.zarr"}}, ["recipe.output", "unknown field"]),
        ({"recipe": {"output": "out/x.zarr"}}, ["recipe.output", "all outputs would have one name"]),
        ({"recipe": {"spatial_chunk": 1}}, ["recipe.spatial_chunk", "64"]),
        ({"recipe": {"package": "zip"}}, ["recipe.package", "'tar.gz'"]),
        ({"recipe": None}, ["recipe"]),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_the_remedy(config_of, over, said):
    with pytest.raises(ConfigError) as caught:
        config_of(**over)
    for part in ["stac-watch.yaml", *said]:
        assert part in caught.value.message
    assert caught.value.exit_code == Exit.CONFIG
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"sources: [", "is not YAML"),
        (b"a: 2025-13-45", "is not YAML"),  # PyYAML lets the date's own ValueError through
        (b"a: !!python/object:os.system {}", "is not YAML"),
        (b"\xff\xfe\xfa", "cannot read"),
        (b"a: 1\nb: 2\na: 3\n", "key 'a' stands twice, in lines 1 and 3"),
        (b"a: {x: 1, x: 1}\n", "key 'x' stands twice"),
        (b"a: " + b"[" * 20_000, "it is nested too deeply"),
        (b"", "holds no mapping"),
        (b"- a\n- b\n", "holds no mapping"),
        (b"text", "holds no mapping"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load(path, {})
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="no configuration at") as caught:
        load(tmp_path / "none.yaml", {})
    assert "--config" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path, {})


@pytest.mark.parametrize("source", ["S2_L2A", "0"])
def test_a_source_is_overridden_by_its_name_or_number(config_of, source):
    environ = {
        f"STAC_WATCH__SOURCES__{source}__API": "https://other.example", "STAC_WATCH__ENGINE__KIND": "local",
        f"STAC_WATCH__SOURCES__{source}__POLL__INTERVAL": "5m", "STAC_WATCH__ENGINE__LIMITS__RATE": "1/s",
        f"STAC_WATCH__SOURCES__{source}__FILTER__BBOX": "[1, 2, 3, 4]", "STAC_WATCH__RECIPE__SHARDING": "true",
        "STAC_WATCH__LEDGER": "sqlite:///other.db", "HOME": "/not/ours", "STAC_WATCHER": "not ours either",
    }  # fmt: skip
    config = config_of(environ)
    entry = config.source("s2-l2a")
    assert (entry.api, entry.poll.interval, entry.filter.bbox) == ("https://other.example", timedelta(minutes=5), (1, 2, 3, 4))
    assert (config.ledger, config.recipe.sharding, config.engine.limits.rate) == ("sqlite:///other.db", True, 1.0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STAC_WATCH__SOURCES__S3__API", "https://x.example", "there is no 's3'"),
        ("STAC_WATCH__LEDGER__FILE", "x", "STAC_WATCH__LEDGER__FILE"),
        ("STAC_WATCH__SOURCES__0__API__X", "x", "STAC_WATCH__SOURCES__0__API__X"),
        ("STAC_WATCH__SOURCES__X", "x", "STAC_WATCH__SOURCES__X"),
        ("STAC_WATCH__RECIPE__OUTPUT", "{collection}/{item_id}.zarr", "STAC_WATCH__RECIPE__OUTPUT"),  # not YAML without quotes
        ("STAC_WATCH__RECIPE__GROPUS", "x", "did you mean 'groups'"),
        ("STAC_WATCH__ENGINE__LIMITS__RATE", "fast", "'fast' is not a rate"),
    ],
)
def test_a_wrong_override_is_named(config_of, name, value, said):
    with pytest.raises(ConfigError) as caught:
        config_of({name: value}, ledger="sqlite:///x.db", engine={"kind": "local"})
    assert said in caught.value.message


def test_secrets_are_masked_wherever_they_are_shown(config_of):
    secrets = {"STAC_WATCH__ENGINE__TOKEN": "123456", "STAC_WATCH__LEDGER": "postgresql+psycopg://me:hunter2@db.example/ledger"}
    config = config_of(secrets, engine=ARGO)
    assert config.engine.token == SecretStr("123456")  # text, although YAML would read a number
    assert config.ledger.count("hunter2") == 1
    for shown in (repr(config), str(config), f"{config.engine!r}"):
        assert "123456" not in shown
        assert "hunter2" not in shown


def test_secrets_may_come_from_files(config_of, tmp_path):
    token, url = tmp_path / "token", tmp_path / "url"
    token.write_text("123456\n")
    url.write_text("postgresql+psycopg://me:hunter2@db.example/ledger\n")
    config = config_of(engine=ARGO | {"token_file": str(token)}, ledger="sqlite:///x.db", ledger_file=str(url))
    assert config.engine.token == SecretStr("123456")
    assert config.ledger == "postgresql+psycopg://me:hunter2@db.example/ledger"
    assert "hunter2" not in repr(config)
    environ = {"STAC_WATCH__ENGINE__TOKEN_FILE": str(token), "STAC_WATCH__LEDGER_FILE": str(url)}
    assert config_of(environ, engine=ARGO) == config_of(engine=ARGO | {"token_file": str(token)}, ledger_file=str(url))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot read"), (b"", "one line"), (b"a b\n", "one line"), (b"\xff\xfe\xfa", "not text")]
)
@pytest.mark.parametrize("place", ["engine.token_file", "ledger_file"])
def test_a_file_without_a_secret_is_named_and_its_content_is_not(config_of, tmp_path, place, content, said):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    given = {"ledger_file": str(path)} if place == "ledger_file" else {"engine": ARGO | {"token_file": str(path)}}
    with pytest.raises(ConfigError, match=said) as caught:
        config_of(**given)
    assert caught.value.message.startswith(f"{place}: ")
    assert str(path) in caught.value.message
    assert "a b" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:hunter2@db/x", "postgres//me:hunter2@db", "postgresql://:hunter2@db/x", "x://me:hunter/2@db"]
)
def test_a_password_in_the_file_is_refused_without_being_shown(config_of, url):
    with pytest.raises(ConfigError, match="has a password") as caught:
        config_of(ledger=url)
    assert "hunter" not in caught.value.message
    assert "STAC_WATCH__LEDGER" in caught.value.hint
    assert "ledger_file" in caught.value.hint


def test_the_web_is_off_and_can_be_put_on_from_the_environment(config_of):
    assert config_of().web is None
    assert (config_of(web={}).web.host, config_of(web={}).web.port) == ("127.0.0.1", 8080)
    for before in ({}, {"web": None}, {"web": {"host": "::1"}}):
        web = config_of({"STAC_WATCH__WEB__HOST": "0.0.0.0", "STAC_WATCH__WEB__PORT": "81"}, **before).web
        assert (web.host, web.port) == ("0.0.0.0", 81)
    assert config_of({"STAC_WATCH__WEB": "null"}, web={}).web is None


def test_a_refused_url_with_credentials_does_not_show_them(config_of):
    with pytest.raises(ConfigError, match="credentials never go into the URL") as caught:
        config_of(source={"api": "https://me:hunter2@stac.example"})
    assert "hunter2" not in caught.value.message


def test_an_unknown_source_lists_those_there_are(config_of):
    with pytest.raises(ConfigError, match="'s3'") as caught:
        config_of().source("s3")
    assert "s2-l2a" in caught.value.hint


def test_nothing_can_be_changed_after_loading(config_of):
    with pytest.raises(ValueError, match="frozen"):
        config_of().recipe.groups = "x"


def test_two_recipes_that_ask_for_other_outputs_have_other_digests(config_of):
    digests = {
        config_of(recipe=r).recipe.digest_fields()
        for r in ({}, {"groups": "a b"}, {"groups": "a"}, {"spatial_chunk": 512}, {"sharding": True}, {"package": "none"},
                  {"output": "elsewhere/{item_id}.zarr"}, {"encoding": "decoded"}, {"encoding": "packed"})
    }  # fmt: skip
    assert len(digests) == 8  # `packed` is what is asked for where nothing is said
    assert config_of(recipe={"groups": "b  a"}).recipe.digest_fields() == config_of(recipe={"groups": "a b"}).recipe.digest_fields()


def test_what_could_not_be_chosen_once_has_the_digest_that_it_had(config_of):
    old = config_of(recipe={"encoding": "stock", "output": "o/{item_id}.zarr"}).recipe
    assert old.digest_fields() == "groups=;chunk=1024;sharding=False;package=auto;output=o/{item_id}.zarr"
    inside = config_of(recipe={"sharding": "auto", "output": "s3://b/{item_id}.zarr"}).recipe
    assert (inside.sharding, inside.sharded) == ("auto", True)
    assert "sharding=True" in inside.digest_fields()


@given(st.integers(0, 1000), st.sampled_from("smhd"))
def test_durations_and_rates(number, unit):
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}") == timedelta(seconds=number * seconds)
    assert parse_duration(f" {number} {unit} ") == timedelta(seconds=number * seconds)
    if number:
        assert parse_rate(f"{number}/{unit}") == pytest.approx(number / seconds)


def test_the_path_of_runs_is_a_path(config_of):
    assert config_of(engine={"kind": "local", "folder": "x/y"}).engine.folder == Path("x/y")


@pytest.mark.parametrize("written", ["off", '"off"', "false", "Off".lower()])
def test_off_is_a_word_in_yaml_as_it_is_written(tmp_path, written):
    path = tmp_path / "stac-watch.yaml"
    source = f"{{name: s2, api: 'http://h.example', collection: c, on: restamp, poll: {{sweep_all: {written}}}}}"
    path.write_text(f"sources: [{source}]")
    found = load(path, {}).sources[0]
    assert (found.poll.sweep_all, found.on) == ("off", "restamp")
    assert load(path, {"STAC_WATCH__SOURCES__S2__POLL__SWEEP_ALL": "off"}).sources[0].poll.sweep_all == "off"
