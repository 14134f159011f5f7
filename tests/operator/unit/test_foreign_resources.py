"""Values that people and other programs write on objects are read, or reported as unreadable."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl.intended import last_applied
from orderservice_operator.resource.annotations import ROLLBACK_ANNOTATION
from orderservice_operator.resource.decoding import Invalid, decode
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.state import rollback

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
SEEN = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    text=st.lists(
        st.sampled_from(["minimal-0", "@", "1", "9" * 5000, "\n", "²", "A", ".", " "]), max_size=5
    ).map("".join)
)
@SEEN
def test_a_rollback_annotation_of_any_text_asks_for_a_revision_or_is_told(
    make: Any, text: str
) -> None:
    service = make()
    annotated = msgspec.structs.replace(
        service,
        metadata=msgspec.structs.replace(service.metadata, annotations={ROLLBACK_ANNOTATION: text}),
    )
    running = rollback.running(annotated, ())
    assert running.rollback is None
    if text and "@" not in text:
        assert ROLLBACK_ANNOTATION in running.problem


@given(member=st.sampled_from(sorted(OrderService.__annotations__)), value=JSON)
@SEEN
def test_a_stored_resource_of_any_shape_is_read_or_invalid(member: str, value: Any) -> None:
    metadata = {"name": "shop", "namespace": "a"}  # the API server holds these to its own rules
    body = {"metadata": metadata, "spec": {}, "status": {}} | {member: value, "metadata": metadata}
    assert isinstance(decode(body), OrderService | Invalid)


@pytest.mark.parametrize("text", ["", "x", "7", "[]", "[" * 100_000, "{", "null"])
def test_what_was_applied_last_is_a_manifest_or_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(OperatorError, match="set-last-applied"):
        last_applied(text)
