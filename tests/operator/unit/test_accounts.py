"""Users that are made in RabbitMQ: compared by their hashes, with the rights of their processes."""

import base64
import hashlib
from typing import Any

import pytest

from orderservice_operator.rabbitmq.accounts import Rights, is_password_of, rights_of

SALT = b"salt"


def _user(algorithm: str) -> dict[str, Any]:
    digest = hashlib.new(algorithm, SALT + b"right").digest()
    return {
        "hashing_algorithm": f"rabbit_password_hashing_{algorithm}",
        "password_hash": base64.b64encode(SALT + digest).decode(),
    }


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_password_is_told_by_its_salted_hash(algorithm: str) -> None:
    assert is_password_of(_user(algorithm), "right")
    assert not is_password_of(_user(algorithm), "wrong")


def test_a_user_without_a_password_has_another_and_one_of_an_unknown_hash_is_left_alone() -> None:
    assert not is_password_of(_user("sha256") | {"password_hash": ""}, "right")
    assert is_password_of({"hashing_algorithm": "of-a-plugin", "password_hash": "x"}, "right")


def test_processes_that_share_a_user_have_the_rights_of_all() -> None:
    assert rights_of(["relay"]) == Rights("^$", "^(orders)$", "^$")
    assert rights_of(["relay", "worker", "notifier"]) == Rights(
        "^$",
        r"^(amq\.default)$|^(orders)$",
        "^$|^(order-notifications)$|^(order-processing)$",
    )
