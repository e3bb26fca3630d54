import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.file_names import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.png", "plain name.png"),
        ("café ж 猫 😀.png".encode(), "café ж 猫 😀.png"),
        (b"caf\xe9.png", r"caf\xe9.png"),
        (b"a\r\nb\t\x1b[31m.png", r"a\r\nb\t\x1b[31m.png"),
        (b"back\\slash 'quoted'.png", r"back\slash 'quoted'.png"),
    ],
)
def test_a_name_is_shown_on_one_line(name, shown):
    assert printable(name.decode("utf-8", "surrogateescape")) == shown


@given(st.text(st.characters()) | st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")))
def test_every_name_can_be_written_and_stays_on_its_line(name):
    shown = printable(name)
    assert len(shown.encode().decode().splitlines()) == bool(name)
    assert printable(shown) == shown
