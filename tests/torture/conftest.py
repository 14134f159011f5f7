"""What the tests share: how they talk to the person who waits."""

from failover.conftest import say

__all__ = ["say"]
