"""A TFRecord shard of tf.train.Example: what lies where, and the labels, without TensorFlow.

A record is its length (8 bytes), a checksum of that, its data, a checksum of these. An Example is a map from names to
lists of bytes, floats or whole numbers in protobuf's wire format. Both are read here by hand, some thirty lines each:
importing TensorFlow's own readers takes seconds, and neither they nor protobuf tell where in the file a picture lies.
"""

import functools
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from tlbench.base.errors import DataError
from tlbench.base.files import opened
from tlbench.data.known import DIGEST_BYTES
from tlbench.data.pictures import MOST_BYTES
from tlbench.data.samples import Sample, Shard

PICTURE, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"
FILE_NAME = "image/filename"
HEAD, FOOT = 12, 4  # bytes around the data of a record
BYTES, NUMBERS = 1, 3  # kinds of a feature
FIXED = {1: 8, 5: 4}  # bytes of the kinds of fields that have no length of their own


def read(path: Path, picture: str, label: str) -> Shard:
    """The samples of a shard, in its order.

    picture, label: the names of features; "auto": the usual ones. An Example has no key: what the picture itself is
    takes its place, which stays the same in whatever shard it comes to lie. Raises DataError with the reason where the
    file is cut off or damaged.
    """
    shard = Shard()
    with opened(path) as file:
        for number, (begin, data) in enumerate(_records(file)):
            try:
                features = _features(data)
                found = features.get(PICTURE if picture == "auto" else picture)
                spans = found.spans if found and found.kind == BYTES else []
                said, text = _label(features, label, data)
                name = "/".join([f"{number:06d}", *_one(features.get(FILE_NAME), data)])
            except (ValueError, LookupError) as error:
                raise DataError(f"record {number} is no tf.train.Example") from error
            if len(spans) != 1:
                (shard.several if spans else shard.bare).append(name)
                continue
            ((at, end),) = spans
            key = hashlib.blake2b(data[at:end], digest_size=DIGEST_BYTES).hexdigest()
            shard.samples.append(Sample(name, key, begin + at, end - at, said, text))
    return shard


# ---------------------------------------------------------------- records


def _records(file: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Where the data of each record begin, and the data."""
    at = 0
    while head := file.read(HEAD):
        length, checksum = struct.unpack("<QI", head.ljust(HEAD, b"\0"))
        if len(head) == HEAD and (masked(crc32c(head[:8])) != checksum or length > MOST_BYTES):
            raise DataError(f"damaged at byte {at:,}")
        # That of the data is left: it would take longer than all else, and pictures are decoded and digested anyway.
        data = file.read(length + FOOT) if len(head) == HEAD else b""
        if len(data) < length + FOOT or len(head) < HEAD:
            raise DataError(f"it ends within the record at byte {at:,}")
        yield at + HEAD, data[:length]
        at += HEAD + length + FOOT


def crc32c(data: bytes) -> int:
    """The checksum that TFRecord uses, of a few bytes: CRC-32C (Castagnoli), RFC 3720."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as a record holds it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(map(entry, range(256)))


# ---------------------------------------------------------------- tf.train.Example

Span = tuple[int, int]  # where something begins and ends in the data of a record


@dataclass(frozen=True)
class _Feature:
    kind: int
    spans: list[Span]  # of its values; several whole numbers may be packed into one


def _features(data: bytes) -> dict[str, _Feature]:
    """Example { Features features = 1; }, Features { map<string, Feature> feature = 1; }."""
    found = {}
    for features in _in(data, 1, (0, len(data))):
        for entry in _in(data, 1, features):
            name = [data[begin:end].decode() for begin, end in _in(data, 1, entry)]
            for feature in _in(data, 2, entry):
                for kind, begin, end in _fields(data, *feature):
                    found["".join(name)] = _Feature(kind, list(_in(data, 1, (begin, end))))
    return found


def _label(features: dict[str, _Feature], label: str, data: bytes) -> tuple[str | None, str | None]:
    """The one label that is there, and the name of its class beside a number."""
    (said,) = _one(features.get(LABEL if label == "auto" else label), data) or (None,)
    (text,) = (label == "auto" and _one(features.get(TEXT), data)) or (None,)
    return (text, None) if said is None else (said, text)


def _one(feature: _Feature | None, data: bytes) -> list[str]:
    """A feature's value as text, in a list that is empty where there is not just one."""
    if feature is None or feature.kind not in (BYTES, NUMBERS):
        return []
    values = []
    for begin, end in feature.spans:
        if feature.kind == BYTES:
            values.append(data[begin:end].decode("utf-8", "backslashreplace").strip())
        while feature.kind == NUMBERS and begin < end:
            number, begin = _varint(data, begin)
            values.append(str(number - (number >> 63 << 64)))
    return values if len(values) == 1 and values[0] else []


def _in(data: bytes, wanted: int, within: Span) -> Iterator[Span]:
    """The spans of one field of a message."""
    return ((begin, end) for field, begin, end in _fields(data, *within) if field == wanted)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message. Raises ValueError or LookupError where it is none."""
    while at < end:
        tag, at = _varint(data, at)
        kind, begin = tag & 7, at
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, begin = _varint(data, at)
            at = begin + length
        else:
            at += FIXED[kind]
        if at > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, begin, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the last of which come first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 2**64 - 1, at
    raise ValueError("a number of more than 64 bits")
