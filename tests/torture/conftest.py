"""Fixtures that the tests share: messages to the person who waits."""

from failover.conftest import say

__all__ = ["say"]
