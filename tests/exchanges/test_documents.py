import pytest

from exchanges.documents import MAX_BYTES, MAX_DEPTH, DocumentError, read_document, unstorable


def test_document_is_read_from_bytes_and_from_text() -> None:
    assert read_document(b'{"a": [1, "\xc3\xa9", null]}') == read_document('{"a": [1, "é", null]}')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        ("[1e400]", "out of range"),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("[" + "9" * 5_000 + "]", "not JSON"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('["\\u0000"]', "must not contain NUL"),
        ('{"\\u0000": 1}', "must not contain NUL"),
        ('["\\ud800"]', "surrogate"),
        ("[" * 40 + "]" * 40, "deeper"),
        ("[" * 400_000, "deeper"),
        (" " * (MAX_BYTES + 1), "longer"),
    ],
)
def test_unacceptable_document_is_refused_with_its_reason(text: bytes | str, complaint: str) -> None:
    with pytest.raises(DocumentError, match=complaint):
        read_document(text)


def test_depth_at_the_limit_is_accepted() -> None:
    assert read_document("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("value", ["text", 1, 1.5, None, True, [], {}, {"a": {"b": ["c"]}}])
def test_ordinary_values_can_be_stored(value: object) -> None:
    assert unstorable(value) == ""
