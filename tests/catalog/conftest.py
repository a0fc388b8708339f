"""The same world, with somebody else's gateway in front of its catalog."""

from collections.abc import Iterator

import pytest
from fakes.gateway import Gateway
from world import World

from stac_watch.demo.catalog import Server, create_app


@pytest.fixture
def gateway(world: World) -> Iterator[Gateway]:
    """Rules in front of the world's catalog."""
    gateway = Gateway()
    with Server(gateway.stand_before(create_app(world.store, now=world.clock))) as server:
        world.url, world.faults = server.url, server.faults
        yield gateway
