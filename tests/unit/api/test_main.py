import socket
from contextlib import closing

import pytest

from api.main import _listen
from service.errors import ConfigurationError
from service.settings import Settings


def test_accepted_connections_can_be_told_to_send_at_once() -> None:
    """asyncio switches Nagle's algorithm off only for sockets that say that they are TCP."""
    with closing(_listen(Settings(port=0))) as listener:
        listener.listen()
        with (
            closing(socket.create_connection(listener.getsockname())),
            closing(listener.accept()[0]) as accepted,
        ):
            assert accepted.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_refused_before_anything_starts() -> None:
    with closing(_listen(Settings(port=0))) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match="another port"):
            _listen(Settings(port=port))
