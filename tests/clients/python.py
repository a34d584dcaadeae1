"""PyPI toxiproxy-python and chaostoolkit-toxiproxy against the server on the port that is the first argument."""

import json
import logging
import os
import socket
import sys
import threading
import time

import logzero
from chaostoxi.proxy import actions as proxies
from chaostoxi.proxy import probes
from chaostoxi.toxic import actions as toxics
from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

SEVEN = {
    "latency": {"latency": 60, "jitter": 0},
    "bandwidth": {"rate": 500},
    "slow_close": {"delay": 10},
    "timeout": {"timeout": 50},
    "reset_peer": {"timeout": 5},
    "slicer": {"average_size": 100, "size_variation": 10, "delay": 5},
    "limit_data": {"bytes": 1_000},
}


def echo():
    """The address of something that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(stream):
        with stream:
            try:
                while data := stream.recv(65_536):
                    stream.sendall(data)
            except OSError:
                pass

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "127.0.0.1:%d" % listener.getsockname()[1]


def round_trip(port):
    """How long a word takes to the echo and back, in seconds; None where it does not come back."""
    begun = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as stream:
            stream.sendall(b"hello")
            back = b""
            while len(back) < 5:
                data = stream.recv(5)
                if not data:
                    return None
                back += data
    except OSError:
        return None
    return time.monotonic() - begun


def refuses(exception, call):
    """That a call is refused with that exception, of which the library knows no more than the name."""
    try:
        call()
    except exception as error:
        return str(error)
    raise AssertionError("%s was to be raised" % exception)


def toxiproxy_python(port, upstream):
    server = Toxiproxy()
    server.update_api_consumer("127.0.0.1", port)
    assert server.running()
    assert json.loads(server.version()) == {"version": "2.12.0"}
    proxy = server.create(upstream=upstream, name="p")
    refuses(ProxyExists, lambda: server.create(upstream=upstream, name="p"))
    listen = proxy.listen.rsplit(":")[-1]
    assert round_trip(listen) is not None
    assert server.get_proxy("p").enabled and server.get_proxy("none") is None
    with proxy.down():
        assert round_trip(listen) is None
    assert round_trip(listen) is not None

    for kind, attributes in SEVEN.items():
        proxy.add_toxic(type=kind, attributes=attributes, toxicity=0.5)
        toxic = proxy.get_toxic(kind + "_downstream")
        assert (toxic.type, toxic.stream, toxic.toxicity) == (kind, "downstream", 0.5), vars(toxic)
        assert toxic.attributes == attributes, toxic.attributes
    assert list(proxy.toxics()) == [kind + "_downstream" for kind in SEVEN]
    for kind in SEVEN:
        assert proxy.destroy_toxic(kind + "_downstream")
    refuses(NotFound, lambda: proxy.destroy_toxic("latency_downstream"))
    refuses(InvalidToxic, lambda: proxy.add_toxic(type="nothing"))
    refuses(InvalidToxic, lambda: proxy.add_toxic(type="latency", stream="sideways"))
    proxy.add_toxic(type="latency", name="slow", stream="upstream", attributes={"latency": 60})
    assert round_trip(listen) >= 0.059
    assert server.reset()
    assert proxy.toxics() == {}

    populated = server.populate(
        [
            {"name": "p", "upstream": upstream, "listen": proxy.listen},
            {"name": "q", "upstream": upstream, "listen": "127.0.0.1:0"},
        ]
    )
    assert [made.name for made in populated] == ["q"]
    assert sorted(server.proxies()) == ["p", "q"]
    assert server.destroy(server.get_proxy("q"))
    server.destroy_all()
    assert server.proxies() == {}


def chaostoolkit(port, upstream):
    configuration = {"toxiproxy_host": "127.0.0.1", "toxiproxy_port": port}
    host, upstream_port = upstream.split(":")
    # It asks for every address of the host, and reads where it may listen from the answer.
    assert proxies.create_proxy("p", host, int(upstream_port), configuration=configuration)
    listen = configuration["p_PORT"]
    assert os.environ["p_PORT"] == listen and round_trip(listen) is not None
    assert probes.proxy_exist("p", configuration) and not probes.proxy_exist("none", configuration)
    assert probes.get_proxy_attribute("p", "upstream", configuration) == upstream
    assert proxies.disable_proxy("p", configuration) and round_trip(listen) is None
    assert proxies.enable_proxy("p", configuration) and round_trip(listen) is not None
    other = echo()
    assert proxies.modify_proxy("p", upstream_address=other, configuration=configuration)
    assert probes.get_proxy_attribute("p", "upstream", configuration) == other
    assert round_trip(listen) is not None

    named = {"for_proxy": "p", "configuration": configuration}
    assert toxics.create_latency_toxic(toxic_name="a", latency=60, jitter=0, **named)
    assert round_trip(listen) >= 0.059
    assert toxics.create_bandwith_degradation_toxic(toxic_name="b", rate=500, **named)
    assert toxics.create_slow_connection_close_toxic(toxic_name="c", delay=10, **named)
    assert toxics.create_slicer_toxic(toxic_name="d", average_size=100, size_variation=10, delay=5, **named)
    assert toxics.create_limiter_toxic(toxic_name="e", bytes_limit=1_000, **named)
    assert round_trip(listen) is not None
    assert toxics.create_timeout_toxic(toxic_name="f", timeout=50, **named)
    assert round_trip(listen) is None
    assert toxics.delete_toxic(toxic_name="f", **named)
    assert toxics.create_toxic(toxic_name="g", toxic_type="reset_peer", attributes={"timeout": 0}, **named)
    assert round_trip(listen) is None
    toxics_now = probes.get_proxy_attribute("p", "toxics", configuration)
    assert [toxic["name"] for toxic in toxics_now] == list("abcdeg"), toxics_now
    assert proxies.reset(configuration) and round_trip(listen) is not None
    proxies.delete_proxy("p", configuration)
    assert not probes.proxy_exist("p", configuration)


def main():
    logzero.loglevel(logging.WARNING)
    port, upstream = int(sys.argv[1]), echo()
    toxiproxy_python(port, upstream)
    print("toxiproxy-python: every call and every toxic")
    chaostoolkit(port, upstream)
    print("chaostoolkit-toxiproxy: every call and every toxic")


main()
