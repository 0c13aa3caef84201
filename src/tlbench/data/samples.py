"""What a shard holds: its samples, each a picture that lies somewhere in it and what is said of its class."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture: `length` bytes from `offset` on.

    name: within its shard; key: what decides in which split it is; label: None where there is none; text: the class's
    name beside a label that is a number.
    """

    name: str
    key: str
    offset: int
    length: int
    label: str | None
    text: str | None = None


@dataclass
class Shard:
    """The samples of one file, in its order, and the keys of those that cannot be any."""

    samples: list[Sample] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)  # a key that says the same a second time
    several: list[str] = field(default_factory=list)  # with more than one picture
    bare: list[str] = field(default_factory=list)  # without a picture
