import base64
import json
import re
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudops_prefect.redaction import Redactor

MASK = b"********"
PASSWORD = "s3cr3t/pass+word?"
PEM = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n".format(
    "\n".join(f"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC{line:032d}" for line in range(20))
)


def pieces_of(data, cuts):
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def fed(redactor, pieces, stream="stdout"):
    redactor = redactor.fresh()
    return b"".join(redactor.feed(stream, piece) for piece in pieces) + redactor.flush(stream)


def reference(secrets, data):
    """What is to come out, worked out the slow way for secrets that have one form only."""
    spans = sorted(
        (found.start(), found.start() + len(secret))
        for secret in secrets
        for found in re.finditer(b"(?=" + re.escape(secret) + b")", data)
    )
    out, end = b"", 0
    for begin, stop in spans:
        if begin >= end:
            out += data[end:begin] + MASK
        end = max(end, stop)
    return out + data[end:]


def all_forms(secret):
    value = secret.encode()
    encoded = base64.b64encode(value)
    yield value
    yield encoded
    yield base64.urlsafe_b64encode(value)
    yield encoded.rstrip(b"=")
    for form in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield form.encode()
    yield json.dumps(secret)[1:-1].encode()


def test_without_secrets_a_chunk_is_passed_on_as_it_is():
    chunk = b"x" * 1000
    redactor = Redactor()
    assert not redactor
    assert redactor.feed("stdout", chunk) is chunk
    assert redactor.flush("stdout") == b""
    assert redactor.text("anything") == "anything"


@pytest.mark.parametrize("form", sorted(set(all_forms(PASSWORD))))
def test_each_form_is_found_at_each_split_of_two_reads(form):
    data = b"before " + form + b" after\n"
    expected = b"before " + MASK + b" after\n"
    redactor = Redactor([PASSWORD])
    for cut in range(len(data) + 1):
        assert fed(redactor, [data[:cut], data[cut:]]) == expected
    assert fed(redactor, [data[i : i + 1] for i in range(len(data))]) == expected


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_within_a_longer_base64_text_is_found_at_each_alignment(before, after, encode):
    secret = "tok?en~with>>every/kind"
    text = encode(b"u" * before + secret.encode() + b"v" * after)
    redacted = Redactor([secret]).whole(text)
    assert MASK in redacted
    # One character of base64 that is half the secret's may be left at each end, and padding.
    visible = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=")
    assert visible[4:-4] not in redacted.translate(bytes.maketrans(b"+/", b"-_"))
    left = len(redacted.replace(MASK, b"").rstrip(b"="))
    assert left <= (8 * before + 5) // 6 + (8 * after + 5) // 6 + 1


@pytest.mark.parametrize("before", range(3))
def test_base64_of_a_secret_at_the_end_of_a_text_leaves_no_last_character(before):
    secret = "hunter2-and-more"
    for end in ("", "\n"):
        text = base64.b64encode(b"u" * before + secret.encode() + end.encode())
        assert Redactor([secret]).whole(text).endswith(MASK)


@pytest.mark.parametrize("columns", [64, 76])
@pytest.mark.parametrize("end", ["", "\n"])
def test_base64_broken_into_lines_is_found(columns, end):
    secret = "".join(chr(33 + i * 7 % 90) for i in range(300))
    encoded = base64.b64encode((secret + end).encode())
    wrapped = b"\n".join(encoded[i : i + columns] for i in range(0, len(encoded), columns))
    assert Redactor([secret]).whole(b"<" + wrapped + b">") == b"<" + MASK + b">"


def broken_into_lines(encoded, columns):
    return b"".join(encoded[i : i + columns] + b"\n" for i in range(0, len(encoded), columns))


@pytest.mark.parametrize("columns", [60, 64, 76])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_within_base64_broken_into_lines_is_found_wherever_the_break_is(columns, encode):
    secret = "".join(chr(33 + i * 7 % 90) for i in range(100))
    redactor = Redactor([secret])
    for before in range(columns):
        text = encode(b"u" * before + secret.encode() + b" and what follows")
        data = b"<" + broken_into_lines(text, columns) + b">"
        redacted = redactor.whole(data)
        # As in a line of its own, of which more is to be seen at no end.
        assert redacted.replace(b"\n", b"") == b"<" + redactor.whole(text) + b">"
        pieces = [data[: 2 * before], data[2 * before : 3 * before], data[3 * before :]]
        assert fed(redactor, pieces) == redacted


@given(
    before=st.binary(max_size=80),
    after=st.binary(max_size=80),
    columns=st.sampled_from([60, 64, 76, 100]),
    cuts=st.lists(st.integers(0, 300), max_size=20),
)
def test_any_split_of_base64_broken_into_lines_gives_what_the_whole_gives(
    before, after, columns, cuts
):
    redactor = Redactor([PASSWORD, PASSWORD * 2])
    encoded = base64.b64encode(before + PASSWORD.encode() * 3 + after)
    data = broken_into_lines(encoded, columns)
    redacted = redactor.whole(data)
    assert MASK in redacted
    assert fed(redactor, pieces_of(data, cuts)) == redacted


def test_lines_that_are_not_broken_base64_are_neither_joined_nor_held_back():
    redactor = Redactor([PASSWORD])
    encoded = base64.b64encode(PASSWORD.encode())
    for text in (encoded[:9] + b"\n" + encoded[9:], b"- " * 40 + encoded[:1] + b"\n"):
        assert redactor.feed("stdout", text) == text


def test_lower_case_url_escapes_and_encodeuricomponent_are_found():
    redactor = Redactor(["a/b(c)d+e'f"])
    for text in (b"a%2fb%28c%29d%2be%27f", b"a%2Fb(c)d%2Be'f", b"a/b%28c%29d%2Be%27f"):
        assert redactor.whole(text) == MASK


def test_a_value_quoted_by_json_or_a_shell_is_found():
    secret = 'it\'s "quoted" \\ über\tall'
    redactor = Redactor([secret])
    for text in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), shlex.quote(secret)):
        assert "quoted" not in redactor.text(text.replace("'\"'\"'", "'\\''"))
    nested = json.dumps({"SecretString": json.dumps({"password": secret})})
    assert "quoted" not in Redactor([json.dumps({"password": secret})]).text(nested)


def test_a_secret_of_several_lines_is_found_whole_and_line_by_line():
    redactor = Redactor([PEM])
    assert redactor.text(f"<{PEM}>") == "<********\n>"
    lines = PEM.splitlines()
    assert redactor.text(lines[5]) == "********"
    for printed in ("\r\n".join(lines), "\n".join(f"  | {line}" for line in lines)):
        assert "MII" not in redactor.text(printed)
    assert redactor.text(lines[0]) == lines[0], "the armour alone is no secret"


@pytest.mark.parametrize(("kept", "printed"), [("\n", "\r\n"), ("\r\n", "\n")])
def test_a_secret_of_short_lines_is_found_with_another_end_of_line(kept, printed):
    lines = ["user", "pa55word", "pin 1234"]
    redactor = Redactor([kept.join([*lines, ""])])
    assert redactor.text(f"<{printed.join(lines)}>") == "<********>"


def test_short_lines_of_a_secret_do_not_turn_output_into_stars():
    redactor = Redactor(["{\n  \n}\nlong enough"])
    assert redactor.text("{ } long") == "{ } long"
    assert redactor.text("{ } long enough") == "{ } ********"


def test_white_space_around_a_secret_is_no_part_of_it():
    assert Redactor(["hunter22\n"]).text("(hunter22)") == "(********)"


def test_short_secrets_are_left_alone_and_listed():
    redactor = Redactor(["abc", "", "  ", "äöü", b"xyz", "long enough", "a \n"])
    assert set(redactor.ignored) == {"abc", "äöü", b"xyz", "a \n"}
    assert redactor.text("abc xyz äöü a long enough") == "abc xyz äöü a ********"
    assert not Redactor(["abc"])
    assert Redactor(["abcd"]).text("abcd") == "********"


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        (["abcd", "cdef"], "xabcdefx", "x********x"),
        (["abab"], "xabababax", "x********ax"),
        (["secret", "secret-and-more"], "secret-and-more secret-and", "******** ********-and"),
        (["middle", "the middle of it"], "the middle of it", "********"),
        (["onesecret", "othersecret"], "onesecretothersecret", "****************"),
        (["aaaa"], "aaaaaaaaa", "********"),
        (["abcdef", "bcde", "defg", "ghij"], "abcdefghij", "********"),
    ],
)
def test_secrets_that_overlap_contain_one_another_or_adjoin(secrets, text, expected):
    redactor = Redactor(secrets)
    assert redactor.text(text) == expected
    data = text.encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            pieces = [data[:first], data[first:second], data[second:]]
            assert fed(redactor, pieces) == expected.encode()


SMALL = st.text("ab", min_size=4, max_size=9).map(str.encode)


@settings(max_examples=400)
@given(
    secrets=st.lists(SMALL, min_size=1, max_size=4),
    data=st.text("abc", max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
@example(secrets=[b"abab", b"babbb"], data=b"ababbb", cuts=[4, 5])
def test_any_split_gives_what_the_whole_gives(secrets, data, cuts):
    redactor = Redactor(secrets)
    expected = redactor.whole(data)
    assert fed(redactor, pieces_of(data, cuts)) == expected
    # These secrets have no forms that could be in such data by chance, beside themselves.
    assert expected == reference(secrets, data)


@settings(max_examples=200)
@given(
    secrets=st.lists(st.text(min_size=4, max_size=30), min_size=1, max_size=3),
    parts=st.lists(st.one_of(st.integers(0, 30), st.binary(max_size=12)), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=10),
)
def test_any_secret_in_any_form_at_any_split(secrets, parts, cuts):
    usable = [s for s in secrets if len(s.strip().encode(errors="ignore").strip()) >= 8]
    forms = [form for secret in usable for form in all_forms(secret.strip())] or [b"nothing"]
    data = b"".join(forms[p % len(forms)] if isinstance(p, int) else p for p in parts)
    redactor = Redactor(secrets)
    redacted = fed(redactor, pieces_of(data, cuts))
    assert redacted == redactor.whole(data)


def test_only_what_may_begin_a_secret_is_held_back():
    redactor = Redactor(["password-of-mine", "passphrase"])
    assert redactor.feed("stdout", b"nothing here\n") == b"nothing here\n"
    assert redactor.feed("stdout", b"all of it: passphrase") == b"all of it: " + MASK
    assert redactor.feed("stdout", b"Enter pass") == b"Enter "
    assert redactor.feed("stdout", b"port:") == b"passport:"
    assert redactor.feed("stdout", b"password-of-min") == b""
    assert redactor.flush("stdout") == b"password-of-min"


def test_streams_do_not_mix_nor_do_commands_that_share_their_secrets():
    redactor = Redactor(["password"])
    other = redactor.fresh()
    assert redactor.feed("stdout", b"pass") == b""
    assert redactor.feed("stderr", b"word") == b"word"
    assert other.feed("stdout", b"word") == b"word"
    assert redactor.feed("stdout", b"word") == MASK


def test_values_that_are_no_utf8_are_found():
    assert Redactor([b"\xff\xfe\xfd\xfc"]).whole(b"a\xff\xfe\xfd\xfcb") == b"a" + MASK + b"b"
    from_environment = b"caf\xe9-token".decode("utf-8", "surrogateescape")
    assert Redactor([from_environment]).whole(b"caf\xe9-token") == MASK
    assert Redactor([from_environment]).text(f"<{from_environment}>") == "<********>"
    assert Redactor(["token"]).text("\udce9 token") == "\udce9 ********"
    assert Redactor(["a\ud800bcd"]).text("a\ud800bcd") == "********"
    assert Redactor(["token"]).text("\ud800") == "\ud800"
