import struct

from dev.cluster.dns import is_answer, question


def test_question_is_a_query_for_an_address() -> None:
    query = question("a.bc")

    assert query[12:] == b"\x01a\x02bc\x00" + struct.pack("!2H", 1, 1)


def test_answer_with_a_record_counts() -> None:
    query = question("a.bc")

    assert is_answer(_reply(query, flags=0x8180, records=1), query)


def test_name_error_server_failure_and_echo_do_not_count() -> None:
    query = question("a.bc")

    assert not is_answer(_reply(query, flags=0x8183, records=0), query)
    assert not is_answer(_reply(query, flags=0x8182, records=0), query)
    assert not is_answer(query, query)
    assert not is_answer(b"", query)


def _reply(query: bytes, *, flags: int, records: int) -> bytes:
    return struct.pack("!6H", 1, flags, 1, records, 0, 0) + query[12:]
