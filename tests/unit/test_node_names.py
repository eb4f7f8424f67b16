"""Names of workers."""

from __future__ import annotations

import os
import socket

import pytest

from celeriac import node_names as names
from celeriac.log import set_process_index


def test_names_are_made_and_taken_apart() -> None:
    assert names.nodename("w1", "example.com") == "w1@example.com"
    assert names.nodesplit("w1@example.com") == ("w1", "example.com")
    assert names.nodesplit("example.com") == (None, "example.com")
    assert names.default_nodename("w1@") == f"w1@{socket.gethostname()}"
    assert names.default_nodename("@example.com") == "celery@example.com"
    assert names.default_nodename() == f"celery@{socket.gethostname()}"
    assert names.anon_nodename("example.com", "x") == f"x{os.getpid()}@example.com"


def test_hosts_and_nodes_are_put_into_texts() -> None:
    assert (
        names.host_format("%h %n %d %i%I %% %x", "mail.example.com", x="X") == "mail.example.com mail example.com 0 % X"
    )
    assert names.host_format("%n", "mail.example.com", name="w1") == "w1"
    assert names.host_format("%t", "a", t=lambda: 7) == "7"
    assert names.node_format("%p %n@%d", "w1@mail.example.com") == "w1@mail.example.com w1@example.com"
    set_process_index(3)
    try:
        assert names.host_format("%i%I", "a") == "3-3"
    finally:
        set_process_index(0)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match="'%q' in 'a-%q' is none of %h, %n"):
        names.host_format("a-%q", "a")


def test_the_queue_of_one_worker() -> None:
    queue = names.worker_direct("w1@example.com")
    assert (queue.name, queue.exchange.name, queue.routing_key) == ("w1@example.com.dq2", "C.dq2", "w1@example.com")
    assert names.worker_direct(queue) is queue
