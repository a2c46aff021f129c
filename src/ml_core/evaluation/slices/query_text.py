"""From pandas' query syntax to Python's: `&` and `|` that bind like words, names in backticks."""

from __future__ import annotations

from dataclasses import dataclass, field

_WORDS = {"&": " and ", "|": " or "}  # pandas gives them the precedence of the words
_QUOTES = ("'", '"', "`")


class QueryTextError(ValueError):
    """What is wrong with a text before it is parsed, and at which place, from 0."""

    def __init__(self, problem: str, place: int) -> None:
        super().__init__(problem)
        self.place = place


@dataclass
class PythonText:
    """An expression in Python's syntax, and where each of its characters came from."""

    text: str = ""
    places: list[int] = field(default_factory=list)  # of each character, in what was given, from 0
    names: dict[str, str] = field(default_factory=dict)  # stand-in -> name that was in backticks

    def add(self, text: str, place: int, *, spread: bool = False) -> None:
        """Append `text`, which stands for one place, or (`spread`) for as many as it is long."""
        self.text += text
        self.places += [place + (i if spread else 0) for i in range(len(text))]

    def place_of(self, at: int) -> int:
        """Return from which place of the given text the character `at` came."""
        return self.places[min(at, len(self.places) - 1)] if self.places else 0


def to_python(query: str) -> PythonText:
    """Return `query` as Python writes it; raises QueryTextError for a quote that is left open.

    A name in backticks becomes a stand-in, blanks of any kind become spaces, and what stands in
    quotes stays as it is. A comment is refused: what follows it would silently not count.
    """
    python, at = PythonText(), 0
    stand_in = "backticked"
    while stand_in in query:
        stand_in += "_"
    while at < len(query):
        char = query[at]
        if char in _QUOTES:
            end = _end_of_quote(query, at)
            if char == "`":
                name = f"{stand_in}{len(python.names)}"
                python.names[name] = query[at + 1 : end]
                python.add(name, at)
            else:
                python.add(query[at : end + 1], at, spread=True)
            at = end
        elif char == "#":
            raise QueryTextError("a comment is not allowed", at)
        elif char in _WORDS:
            python.add(_WORDS[char], at)
        elif not char.isspace():
            python.add(char, at)
        elif python.text:  # Python takes a leading blank for an indent
            python.add(" ", at)
        at += 1
    return python


def _end_of_quote(query: str, start: int) -> int:
    """Return where the quote that opens at `start` closes; a backslash guards what follows it."""
    quote, at = query[start], start + 1
    while at < len(query):
        if query[at] == quote:
            return at
        at += 2 if query[at] == "\\" and quote != "`" else 1
    raise QueryTextError(f"the {quote} is never closed", start)
