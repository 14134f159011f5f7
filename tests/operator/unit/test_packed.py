"""Live objects come out of their packing as they went in."""

from typing import Any

import msgspec

from orderservice_operator.cluster.packed import Packer

KIND = ("v1", "ConfigMap")


def _object(number: int) -> Any:
    data = {f"SETTING_{line}": f"value {line}" for line in range(200)}
    metadata = {"name": f"settings-{number}", "resourceVersion": str(number)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_every_object_of_a_kind_comes_out_as_it_went_in() -> None:
    packer = Packer()
    objects = [_object(number) for number in range(3)] + [_object(0) | {"data": {"ü": "\0"}}]
    packed = [packer.pack(KIND, item) for item in objects]
    assert [packer.unpack(KIND, item) for item in packed] == objects


def test_an_object_like_others_of_its_kind_takes_a_tenth_of_its_json() -> None:
    packer = Packer()
    packer.pack(KIND, _object(1))
    assert len(packer.pack(KIND, _object(2))) * 10 < len(msgspec.json.encode(_object(2)))
