"""Meanings of settings, from all the places where a dataclass may have them."""

from dataclasses import dataclass, field

from fangyan.meanings import meaning_of


@dataclass
class Documented:
    """Whatever.

    Attributes:
        first: what is
            read; ``null`` = :class:`~somewhere.Thing`.
        second, third: shared.

    Raises:
        fourth: is no field.
    """

    first: str = ""
    second: int = 1
    third: int = 2
    fourth: int = 3


@dataclass
class Commented(Documented):
    inline: int = 5  # at the end
    wrapped: float = (
        7500.0  # inside the brackets
    )  # fmt: skip
    # Above,
    # in two lines.
    above: list[int] = field(default_factory=list)
    nothing: str = "# no comment"
    both: str | None = None  # below the one without

    first: str = "other"

    def method(self) -> None:
        """Its variables are no settings."""
        local: int = 1  # not a field
        assert local


def test_docstring() -> None:
    assert meaning_of(Documented, "first") == "what is read; null = Thing."
    assert meaning_of(Documented, "second") == meaning_of(Documented, "third") == "shared."
    assert meaning_of(Documented, "fourth") == ""


def test_comments_belong_to_their_own_field() -> None:
    assert meaning_of(Commented, "inline") == "at the end"
    assert "inside the brackets" in meaning_of(Commented, "wrapped")
    assert meaning_of(Commented, "above") == "Above, in two lines."
    assert meaning_of(Commented, "nothing") == ""
    assert meaning_of(Commented, "both") == "below the one without"
    assert meaning_of(Commented, "local") == ""


def test_a_field_of_a_base_class_keeps_its_meaning() -> None:
    assert meaning_of(Commented, "second") == "shared."
    assert meaning_of(Commented, "first") == "what is read; null = Thing."
