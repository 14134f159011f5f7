"""How many connections and requests fit into the gateway's memory: all limits come from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Where neither a setting nor the container says how much there is: what the operator asks for.
DEFAULT_MEMORY_MIB: Final = 128
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
# nginx's two processes, shared memory, and the parent with its metrics: measured, rounded up.
_BASE_MIB: Final = 48
# A connection whose header is on its way: struct, pool and header buffer.
_CONNECTION_KIB: Final = 6
# A request at its largest: header buffers, 16 KiB of body, 40 KiB of the answer.
_REQUEST_KIB: Final = 72
# What OpenSSL keeps for a connection beside that: a guess on the safe side of a 16 KiB record to
# read, 4 KiB to write, keys and state.
_TLS_KIB: Final = 32
_SMALLEST_SHARE_MIB: Final = 4


@dataclass(frozen=True, slots=True)
class Capacity:
    """Limits of the whole gateway; a client's address may take a quarter of the requests."""

    connections: int
    requests: int

    @property
    def requests_per_address(self) -> int:
        """Requests under way from one address."""
        return max(1, self.requests // 4)


def capacity(memory_mib: int, *, tls: bool = False) -> Capacity:
    """Divide the memory: a third for connections, two thirds for requests under way."""
    extra_kib = _TLS_KIB if tls else 0
    share_mib = max(_SMALLEST_SHARE_MIB, memory_mib - _BASE_MIB)
    return Capacity(
        connections=share_mib * 1024 // 3 // (_CONNECTION_KIB + extra_kib),
        requests=share_mib * 1024 * 2 // 3 // (_REQUEST_KIB + extra_kib),
    )


def container_memory_mib(limit: Path = _CGROUP) -> int:
    """Return the container's memory limit, DEFAULT_MEMORY_MIB where it has none, in MiB."""
    try:
        text = limit.read_text().strip()
    except OSError:
        return DEFAULT_MEMORY_MIB
    return int(text) // 2**20 if text.isdigit() else DEFAULT_MEMORY_MIB
